use std::os::unix::net::UnixListener;

use super::*;

const TARGET: Target<'_> = Target {
    destination: "a.b",
    path: "/a",
    interface: "a.B",
};

/// Runs `client` against a server that answers the handshake with `greeting` and then sends
/// `answers`.
fn against<T: Send>(
    greeting: &[u8],
    answers: &[u8],
    client: impl FnOnce(Result<Connection>) -> T + Send,
) -> T {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bus");
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::scope(|scope| {
        let address = format!("unix:path=/nowhere/at/all;unix:path={}", path.display());
        let client = scope.spawn(move || client(Connection::open(&address)));
        let (mut stream, _) = listener.accept().unwrap();
        let mut handshake = [0; 29];
        stream.read_exact(&mut handshake).unwrap();
        assert_eq!(&handshake, b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        stream.write_all(greeting).unwrap();
        stream.write_all(answers).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
        client.join().unwrap()
    })
}

/// A message to us: kind, reply serial, error name or member, body of texts.
fn message(kind: u8, reply: u32, name: &str, texts: &[&str]) -> Vec<u8> {
    let arguments: Vec<Value> = texts
        .iter()
        .map(|text| Value::Text((*text).to_owned()))
        .collect();
    let member = if kind == 3 { "ignored" } else { name };
    let mut bytes = wire::call(9, &TARGET, member, &arguments).unwrap();
    bytes[1] = kind;
    // The fields of a call end with the signature, or without arguments with the destination;
    // the answer's own are put in front of them.
    let mut extra = vec![5, 1, b'u', 0];
    extra.extend(reply.to_le_bytes());
    if kind == 3 {
        extra.extend([4, 1, b's', 0]);
        extra.extend(u32::try_from(name.len()).unwrap().to_le_bytes());
        extra.extend(name.as_bytes());
        extra.push(0);
        extra.resize(extra.len().next_multiple_of(8), 0);
    }
    let length = u32::from_le_bytes(bytes[12..16].try_into().unwrap());
    let length = length + u32::try_from(extra.len()).unwrap();
    bytes[12..16].copy_from_slice(&length.to_le_bytes());
    bytes.splice(16..16, extra);
    bytes
}

const GREETING: &[u8] = b"DATA\r\nOK 0123456789abcdef\r\n";

#[test]
fn answers_are_found_among_signals() {
    let mut answers = message(4, 0, "JobRemoved", &["/job/1", "done"]);
    answers.extend(message(2, 77, "other", &["not for us"]));
    answers.extend(message(2, 1, "answer", &["/job/1"]));
    against(GREETING, &answers, |connection| {
        let mut connection = connection.unwrap();
        let answer = connection.call(&TARGET, "Start", &[]).unwrap();
        assert_eq!(answer.text(0).as_deref(), Some("/job/1"));
        let done = connection.wait_signal("the job", |signal| {
            (signal.text(0).as_deref() == Some("/job/1")).then(|| signal.text(1))
        });
        assert_eq!(done.unwrap().as_deref(), Some("done"));
    });
}

#[test]
fn errors_carry_their_name() {
    let answers = message(
        3,
        1,
        "org.freedesktop.systemd1.UnitExists",
        &["Unit x is there."],
    );
    let text = against(GREETING, &answers, |connection| {
        connection
            .unwrap()
            .call(&TARGET, "Start", &[])
            .unwrap_err()
            .to_string()
    });
    assert_eq!(
        text,
        "call `Start`: org.freedesktop.systemd1.UnitExists: Unit x is there."
    );
}

#[test]
fn refusal_and_rubbish_are_errors() {
    let text = against(b"REJECTED EXTERNAL\r\n", b"", |connection| {
        connection.unwrap_err().to_string()
    });
    assert!(text.ends_with("refused: REJECTED EXTERNAL"), "{text}");
    for rubbish in [
        b"".as_slice(),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        &[0; 64],
    ] {
        against(GREETING, rubbish, |connection| {
            connection.unwrap().call(&TARGET, "Start", &[]).unwrap_err();
        });
    }
}
