//! Cases for Docker and Podman: volumes, networks, images that are built.

use std::fs;
use tests::engine::{Case, Engine};
use tests::wait_until;

pub(crate) const CASES: &[Case<Engine>] = &[
    ("bind_mounts", bind_mounts),
    ("named_volumes", named_volumes),
    ("tmpfs", tmpfs),
    ("published_port", published_port),
    ("network_of_containers", network_of_containers),
    ("build_runs_commands", build),
];

fn bind_mounts(engine: &Engine) {
    let directory = engine
        .sandbox()
        .path(&format!("bound-{}", engine.name().name()));
    engine
        .sandbox()
        .write(&format!("{directory}/note"), "from the host\n");
    let option = format!("--volume={directory}:/mnt/deep");
    engine
        .shell(
            &[&option],
            "cat /mnt/deep/note; echo back >/mnt/deep/answer",
        )
        .succeeds()
        .prints("from the host\n");
    assert_eq!(
        engine.sandbox().read(&format!("{directory}/answer")),
        "back\n"
    );
    let option = format!("--volume={directory}:/mnt:ro");
    let outcome = engine.shell(&[&option], "echo x >/mnt/note").fails();
    assert!(
        outcome.stderr().contains("Read-only file system"),
        "{}",
        outcome.stderr()
    );
    let option = format!("--volume={directory}/note:/etc/note");
    engine
        .run(&[&option], &["cat", "/etc/note"])
        .succeeds()
        .prints("from the host\n");
    let option = format!(
        "--mount=type=bind,source={directory},target=/mnt,readonly,bind-propagation=rslave"
    );
    engine
        .shell(
            &[&option],
            "grep ' /mnt ' /proc/self/mountinfo | grep -o 'master:'; cat /mnt/note",
        )
        .succeeds()
        .prints("master:\nfrom the host\n");
    let outcome = engine.run(&[&format!("--volume={directory}/note:/etc")], &["true"]);
    outcome.fails().says("not a directory");
}

fn named_volumes(engine: &Engine) {
    let volume = format!("volume-{}", engine.name().name());
    let option = format!("--volume={volume}:/data");
    engine
        .shell(&[&option], "cat /data/seed; echo kept >/data/kept")
        .succeeds()
        .prints("from the image\n");
    engine
        .run(&[&option, "--user=guest"], &["cat", "/data/kept"])
        .succeeds()
        .prints("kept\n");
    engine.call(&["volume", "rm", &volume]).succeeds();
}

fn tmpfs(engine: &Engine) {
    let script = "stat -c %a /scratch; grep ' /scratch ' /proc/mounts | grep -o noexec; dd if=/dev/zero of=/scratch/x bs=1M count=3 2>&1 | grep -o 'No space'";
    engine
        .shell(&["--tmpfs=/scratch:rw,noexec,size=2m,mode=700"], script)
        .succeeds()
        .prints("700\nnoexec\nNo space\n");
    let script = "grep ' /fast ' /proc/mounts | cut -d ' ' -f 3; touch /fast/x";
    engine
        .shell(&["--mount=type=tmpfs,destination=/fast"], script)
        .succeeds()
        .prints("tmpfs\n");
}

fn published_port(engine: &Engine) {
    let container = engine.start(
        &["--network=bridge", "--publish=127.0.0.1:18080:80"],
        "exec httpd -f -h /www",
    );
    let fetch = || engine.sandbox().fetch("http://127.0.0.1:18080/index.html");
    wait_until("the port answers", || fetch() == "drift ice\n");
    drop(container);
    assert_eq!(fetch(), "");
}

fn network_of_containers(engine: &Engine) {
    let network = format!("net-{}", engine.name().name());
    engine.call(&["network", "create", &network]).succeeds();
    let option = format!("--network={network}");
    let server = engine.start(&[&option], "exec httpd -f -h /www");
    let address = server.inspect("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}");
    let fetch = format!(
        "for i in $(seq 100); do wget -q -O - http://{address}/ && break; sleep 0.05; done"
    );
    engine
        .shell(&[&option], &fetch)
        .succeeds()
        .prints("drift ice\n");
    engine
        .shell(&["--network=none"], "ip -o link | grep -vc ' lo:'")
        .exits(1)
        .prints("0\n");
    drop(server);
    engine.call(&["network", "rm", &network]).succeeds();
}

const DOCKERFILE: &str = r#"
FROM localhost/floe-test:1
RUN echo built >/built && test "$(id -u)" = 0
COPY context.txt /copied
ENV STAGE=two
WORKDIR /work
USER guest
RUN test "$STAGE" = two && test "$(pwd)" = /work && test "$(id -un)" = guest && touch /tmp/by-guest
CMD ["sh", "-c", "cat /built /copied; stat -c %U /tmp/by-guest; pwd"]
"#;

fn build(engine: &Engine) {
    build_with(engine, &[]);
}

/// A build whose commands run under the runtime, and one whose command fails.
pub(crate) fn build_with(engine: &Engine, environment: &[(&str, &str)]) {
    let id = engine.name().name().to_owned();
    let context = engine.sandbox().path(&format!("context-{id}"));
    engine
        .sandbox()
        .write(&format!("{context}/Dockerfile"), DOCKERFILE);
    engine
        .sandbox()
        .write(&format!("{context}/context.txt"), "carried\n");
    let image = format!("localhost/built-{id}");
    let build = |context: &str| {
        let mut client = engine.client();
        client.args(["build", "--network=none", "--tag", &image]);
        // Docker makes a group below it; Podman takes it as the group of each command.
        client.arg(format!(
            "--cgroup-parent={}/build-{id}",
            engine.sandbox().group()
        ));
        engine
            .sandbox()
            .outcome(client.envs(environment.iter().copied()).arg(context))
    };
    build(&context).succeeds();
    let mut client = engine.client();
    client
        .args(["run", "--rm"])
        .args(engine.options(&[]))
        .arg(&image);
    engine
        .sandbox()
        .outcome(&mut client)
        .succeeds()
        .prints("built\ncarried\nguest\n/work\n");
    let broken = "FROM localhost/floe-test:1\nRUN echo before && exit 9\n";
    engine
        .sandbox()
        .write(&format!("{context}/Dockerfile"), broken);
    let outcome = build(&context).fails();
    let said = format!("{}{}", outcome.stdout(), outcome.stderr());
    assert!(said.contains('9') && said.contains("before"), "{said}");
    drop(fs::remove_dir_all(engine.sandbox().outside(&context)));
}
