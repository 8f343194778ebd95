//! The shortest ways through a runtime, which every peer passes too.

use tests::{Bundle, Container};

#[test]
fn run_prints_and_returns_the_status() {
    let container = Container::new(Bundle::new().args(["echo", "hello", "--", "exit", "7"]));
    container.run().exits(7).prints("hello\n");
}

#[test]
fn create_start_delete() {
    let container = Container::new(Bundle::new().args(["sleep", "1000"]));
    container.create().succeeds();
    assert_eq!(container.status(), "created");
    container.start().succeeds();
    assert_eq!(container.status(), "running");
    container.exec(["/payload", "exit", "3"]).exits(3);
    container.kill("KILL").succeeds();
    container.wait_for_status("stopped");
    container.delete().succeeds();
    container.call(["state", container.id()]).fails().says("does not exist");
}
