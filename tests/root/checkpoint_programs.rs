//! Real programs in containers, under load, frozen to disk, ended and brought back: their clients see
//! no error, and no work is lost or done twice.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;
use tests::{Floe, host, need, wait_until};

/// Long enough for a client to be in the middle of something.
const WHILE: Duration = Duration::from_millis(700);

/// A port of the host's loopback device that nobody listens at.
fn free_port() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    listener.local_addr().expect("its number").port()
}

/// The container `p` with the host's network, in which `script` runs.
fn run(floe: &Floe, flags: &[&str], script: &str) {
    let mut args = vec!["run", "-d", "--name", "p", "--net", "host"];
    args.extend(flags);
    args.extend(["--", "sh", "-c", script]);
    floe.call(args).succeeds();
}

fn wait_for_port(port: u16) {
    wait_until("the program listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Freezes `p` to disk, which ends it, and brings it back, some times in a row.
fn rounds(floe: &Floe, count: u32) {
    for _ in 0..count {
        sleep(WHILE);
        floe.line("checkpoint --tcp-established --file-locks p").succeeds();
        assert_ne!(floe.status("p"), "running");
        floe.line("restore p").succeeds();
        assert_eq!(floe.status("p"), "running");
    }
    sleep(WHILE);
}

/// Connections on which requests are counted: the answer to the nth must name n.
struct Counting {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<u64>>>,
}

impl Counting {
    #[expect(clippy::disallowed_methods, reason = "tests are not single-threaded anyway")]
    fn start(port: u16, request: fn(usize, u64) -> String, answer: fn(u64) -> String) -> Counting {
        let stop = Arc::new(AtomicBool::new(false));
        let one = |number| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || count(port, &stop, |at| request(number, at), answer))
        };
        let threads = (0..5).map(one).collect();
        Counting { stop, threads }
    }

    /// The clients of a server that answers each line with its number on the connection.
    fn lines(port: u16) -> Counting {
        Counting::start(port, |_, at| format!("line {at}\n"), |at| format!("{at} line {at}"))
    }

    fn finish(self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            let count = thread.join().expect("no wrong answer").expect("no error");
            assert!(count > 10, "only {count} requests were answered");
        }
    }
}

fn count(
    port: u16,
    stop: &AtomicBool,
    request: impl Fn(u64) -> String,
    answer: fn(u64) -> String,
) -> io::Result<u64> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut answers = BufReader::new(stream.try_clone()?);
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        at += 1;
        stream.write_all(request(at).as_bytes())?;
        let mut line = String::new();
        answers.read_line(&mut line)?;
        assert_eq!(line.trim_end(), answer(at));
    }
    Ok(at)
}

/// A client program of the host that must end well.
fn load(program: &str, args: &[&str]) -> Child {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("a client")
}

fn ends_well(client: Child) -> String {
    let output = client.wait_with_output().expect("its end");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}\n{errors}", output.status);
    text
}

fn redis(count: u32) {
    need!(host::program("redis-server"), "needs redis-server");
    let floe = Floe::new();
    let port = free_port();
    let script = format!("cd /tmp; exec redis-server --port {port} --appendonly yes --save ''");
    run(&floe, &[], &script);
    wait_for_port(port);
    let clients =
        Counting::start(port, |number, _| format!("INCR counter{number}\r\n"), |at| format!(":{at}"));
    let port = port.to_string();
    let benchmark = ["-p", &port, "-c", "10", "-n", "2000000", "-t", "set,get", "-q", "--csv"];
    let mut benchmark = load("redis-benchmark", &benchmark);
    rounds(&floe, count);
    assert!(benchmark.try_wait().expect("its state").is_none(), "the load ended");
    benchmark.kill().expect("its end");
    let said = benchmark.wait_with_output().expect("its output");
    assert!(!String::from_utf8_lossy(&said.stderr).contains("Error"), "{said:?}");
    clients.finish();
    floe.line("rm -f p").succeeds();
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests are not single-threaded anyway"
)]
fn nginx(count: u32) {
    need!(host::program("nginx"), "needs nginx");
    let floe = Floe::new();
    let port = free_port();
    let file: Vec<u8> = (0..12_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let www = floe.path("www");
    std::fs::create_dir(&www).expect("a directory");
    std::fs::write(www.join("large"), &file).expect("a file");
    let configuration = format!(
        "daemon off; worker_processes 2; pid /tmp/pid; error_log stderr; events {{}}
        http {{ access_log off; client_body_temp_path /tmp/1; proxy_temp_path /tmp/2;
        fastcgi_temp_path /tmp/3; uwsgi_temp_path /tmp/4; scgi_temp_path /tmp/5;
        server {{ listen 127.0.0.1:{port}; root /www; }} }}"
    );
    std::fs::write(www.join("nginx.conf"), configuration).expect("a file");
    let volume = format!("{}:/www:ro", www.display());
    run(&floe, &["-v", &volume], "exec nginx -c /www/nginx.conf");
    wait_for_port(port);
    let reader = std::thread::spawn(move || download(port, count));
    rounds(&floe, count);
    let got = reader.join().expect("no error");
    let body = got.len() - file.len();
    assert!(got.starts_with(b"HTTP/1.0 200") || got.starts_with(b"HTTP/1.1 200"));
    assert!(got[body..] == file, "the file was changed on its way");
    floe.line("rm -f p").succeeds();
}

/// Reads so slowly that the connection lives through all rounds.
fn download(port: u16, rounds: u32) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("a connection");
    stream.write_all(b"GET /large HTTP/1.0\r\n\r\n").expect("a request");
    let mut got = Vec::new();
    let mut buffer = vec![0; 1 << 20];
    let pause = Duration::from_millis(80) * rounds;
    loop {
        match stream.read(&mut buffer).expect("more of the file") {
            0 => return got,
            length => got.extend_from_slice(&buffer[..length]),
        }
        sleep(pause);
    }
}

const PYTHON: &str = r#"
import asyncio, sys
async def serve(reader, writer):
    count = 0
    while line := await reader.readline():
        count += 1
        writer.write(b"%d %s" % (count, line))
        await writer.drain()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]))
    async with server:
        await server.serve_forever()
asyncio.run(main())
"#;

const NODE: &str = r#"
const port = Number(process.argv[2]);
setInterval(() => { globalThis.waste = new Array(20000).fill(0).map(Math.random); }, 5);
require("net").createServer((socket) => {
    let count = 0, rest = "";
    socket.on("data", (data) => {
        const lines = (rest + data).split("\n");
        rest = lines.pop();
        for (const line of lines) socket.write(++count + " " + line + "\n");
    });
}).listen(port, "127.0.0.1");
"#;

/// Threads that make garbage and hot code, so that the compiler and the collector are at work.
const JAVA: &str = r#"
import java.io.*;
import java.net.*;
public class Server {
    static volatile Object waste;
    static volatile double hot;
    static void litter() {
        while (true) {
            byte[][] all = new byte[60][];
            for (int i = 0; i < all.length; i++) { all[i] = new byte[20000]; hot += Math.sin(i); }
            waste = all;
            try { Thread.sleep(1); } catch (InterruptedException e) { return; }
        }
    }
    static void serve(Socket socket) {
        try {
            BufferedReader in = new BufferedReader(new InputStreamReader(socket.getInputStream()));
            OutputStream out = socket.getOutputStream();
            int count = 0;
            for (String line; (line = in.readLine()) != null;) out.write((++count + " " + line + "\n").getBytes());
        } catch (IOException e) { e.printStackTrace(); }
    }
    public static void main(String[] args) throws Exception {
        for (int i = 0; i < 3; i++) new Thread(Server::litter).start();
        ServerSocket server = new ServerSocket(Integer.parseInt(args[0]), 50, InetAddress.getLoopbackAddress());
        while (true) { Socket socket = server.accept(); new Thread(() -> serve(socket)).start(); }
    }
}
"#;

/// A server that counts lines, written in `name` and run by `command`.
fn lines(name: &str, source: &str, command: &str, count: u32) {
    let floe = Floe::new();
    let port = free_port();
    let directory = floe.path("source");
    std::fs::create_dir(&directory).expect("a directory");
    std::fs::write(directory.join(name), source).expect("a source");
    let volume = format!("{}:/source:ro", directory.display());
    run(&floe, &["-v", &volume], &format!("exec {command} /source/{name} {port}"));
    wait_for_port(port);
    let clients = Counting::lines(port);
    rounds(&floe, count);
    clients.finish();
    floe.line("rm -f p").succeeds();
}

fn python(count: u32) {
    lines("server.py", PYTHON, "/usr/bin/python3", count);
}

fn node(count: u32) {
    need!(host::program("node"), "needs node");
    lines("server.js", NODE, "node", count);
}

fn java(count: u32) {
    need!(host::program("javac"), "needs javac");
    lines("Server.java", JAVA, "java -Xmx200m", count);
}

fn postgres(count: u32) {
    let programs = need!(
        std::fs::read_dir("/usr/lib/postgresql").ok().and_then(|mut all| all.next()?.ok()),
        "needs postgresql"
    );
    let programs = programs.path().join("bin");
    need!(host::program("pgbench"), "needs pgbench");
    let floe = Floe::new();
    let port = free_port();
    let bin = programs.display();
    let script = format!(
        "{bin}/initdb -D /tmp/data -A trust >/dev/null && \
         exec {bin}/postgres -D /tmp/data -p {port} -c unix_socket_directories=/tmp"
    );
    run(&floe, &["-u", "postgres", "-e", "LC_ALL=C.UTF-8"], &script);
    let port = port.to_string();
    let common = ["-h", "127.0.0.1", "-p", &port, "-U", "postgres"];
    let ask = |text: &str| {
        let output = Command::new("psql").args(common).args(["-tA", "-c", text, "postgres"]).output();
        let output = output.expect("psql");
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    wait_until("the database answers", || ask("select 1").is_some());
    let fill = Command::new("pgbench").args(common).args(["-i", "-s", "2", "-q", "postgres"]).output();
    assert!(fill.expect("pgbench").status.success());
    let seconds = (5 + 4 * count).to_string();
    let load = load("pgbench", &[&common[..], &["-c", "4", "-T", &seconds, "postgres"]].concat());
    rounds(&floe, count);
    let said = ends_well(load);
    assert!(said.contains("number of failed transactions: 0 "), "{said}");
    let sums = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history)";
    assert_eq!(ask(sums).as_deref(), Some("t"));
    let check = Command::new(programs.join("pg_amcheck")).args(common).args(["--install-missing", "postgres"]).output();
    let check = check.expect("pg_amcheck");
    assert!(check.status.success(), "{check:?}");
    floe.line("rm -f p").succeeds();
}

/// A shell with job control and an editor, on terminals that a multiplexer holds.
fn shell(count: u32) {
    need!(host::program("tmux"), "needs tmux");
    need!(host::program("vi"), "needs vim-tiny");
    let floe = Floe::new();
    run(&floe, &[], "tmux -S /tmp/s new-session -d -x 80 -y 24 bash; exec sleep 100000");
    let keys = |keys: &[&str]| {
        let args = ["exec", "p", "tmux", "-S", "/tmp/s", "send-keys"];
        floe.call([&args[..], keys].concat()).succeeds();
    };
    let holds = |file: &str, text: &str| {
        wait_until(&format!("{file} holds {text}"), || {
            floe.call(["exec", "p", "cat", file]).stdout().contains(text)
        });
    };
    wait_until("the terminal is there", || floe.line("exec p test -S /tmp/s").code() == 0);
    keys(&["sleep 1000", "Enter"]);
    sleep(WHILE);
    keys(&["C-z"]);
    keys(&["bg", "Enter", "vi -u NONE /tmp/text", "Enter"]);
    wait_until("the editor has its file", || floe.line("exec p test -e /tmp/.text.swp").code() == 0);
    keys(&["i", "before"]);
    rounds(&floe, count);
    keys(&[" and after", "Escape", ":wq", "Enter"]);
    holds("/tmp/text", "before and after");
    keys(&["jobs >/tmp/jobs", "Enter"]);
    holds("/tmp/jobs", "Running");
    keys(&["fg", "Enter"]);
    sleep(WHILE);
    keys(&["C-c"]);
    keys(&["echo $? >/tmp/code", "Enter"]);
    holds("/tmp/code", "130");
    floe.line("rm -f p").succeeds();
}

/// Each program, once in the standard run and ten times in the long one.
macro_rules! programs {
    ($($program:ident: fn $once:ident(), fn $often:ident();)*) => {$(
        #[test]
        fn $once() {
            $program(1);
        }

        #[test]
        #[ignore = "long"]
        fn $often() {
            $program(10);
        }
    )*};
}

programs! {
    redis: fn redis_counts_on(), fn redis_counts_on_after_ten_rounds();
    nginx: fn nginx_serves_a_file_to_its_end(), fn nginx_serves_a_file_through_ten_rounds();
    python: fn a_python_server_answers_on(), fn a_python_server_answers_on_after_ten_rounds();
    node: fn a_node_server_answers_on(), fn a_node_server_answers_on_after_ten_rounds();
    java: fn a_java_server_answers_on(), fn a_java_server_answers_on_after_ten_rounds();
    postgres: fn postgres_loses_no_transaction(), fn postgres_loses_no_transaction_in_ten_rounds();
    shell: fn a_shell_and_its_jobs_go_on(), fn a_shell_and_its_jobs_go_on_after_ten_rounds();
}
