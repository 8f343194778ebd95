//! Groups of one test: named by it, removed at its end, and nothing of them left.

use std::path::PathBuf;
use std::process::{Child, Command};

use serde_json::Value;
use tests::{Floe, Outcome, host, unique_id};

/// `floe group` on a tree of the test's own.
pub(crate) struct Groups {
    pub(crate) floe: Floe,
    /// The topmost group's name.
    pub(crate) top: String,
    children: Vec<Child>,
}

impl Groups {
    pub(crate) fn new() -> Self {
        Self { floe: Floe::new(), top: unique_id(), children: Vec::new() }
    }

    /// `floe group …`; the word `%` is the name of the topmost group, `%/…` of one below it.
    pub(crate) fn call<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Outcome {
        Outcome::of(&mut self.command(args), &self.floe.path("out"))
    }

    /// The same, of a line that is split at blanks.
    pub(crate) fn line(&self, line: &str) -> Outcome {
        self.call(line.split_whitespace())
    }

    pub(crate) fn command<S: AsRef<str>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut all = vec!["group".to_owned()];
        all.extend(args.into_iter().map(|arg| self.name(arg.as_ref())));
        self.floe.command(all)
    }

    /// `%` and `%/…` with the topmost group's name; other words as they are.
    fn name(&self, word: &str) -> String {
        match word.strip_prefix('%') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", self.top),
            _ => word.to_owned(),
        }
    }

    /// Starts a program in a group, and waits until it runs there, or has ended.
    pub(crate) fn start(&mut self, group: &str, program: &[&str]) -> i32 {
        let mut child = self.command([&["run", group, "--"], program].concat()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let name = self.name(group);
        tests::wait_until("the program runs in its group", || {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            // It is floe until it is the program, which may have become another by now.
            let runs = !String::from_utf8_lossy(&line).contains("group\0run\0")
                && !line.is_empty()
                && groups_of(pid).iter().all(|at| at.ends_with(&name));
            runs || child.try_wait().unwrap().is_some()
        });
        self.children.push(child);
        pid
    }

    /// Waits for a program that was started; how it ended, as a shell tells it.
    pub(crate) fn wait(&mut self, pid: i32) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let child = self.children.iter_mut().find(|child| child.id().cast_signed() == pid).unwrap();
        let status = child.wait().unwrap();
        status.code().or(status.signal().map(|signal| signal + 128)).unwrap()
    }

    /// `floe group get` of one key: the object of requested, value and effective.
    pub(crate) fn get(&self, group: &str, key: &str) -> Value {
        let name = self.name(group);
        let mut all = self.call(["get", "--format", "json", group, key]).succeeds().json();
        all[&name].as_object_mut().unwrap().values_mut().next().unwrap().take()
    }

    /// The effective value of a key.
    pub(crate) fn effective(&self, group: &str, key: &str) -> String {
        self.get(group, key)["effective"].as_str().unwrap_or("-").to_owned()
    }

    /// The directories of a group, one a hierarchy, that exist.
    pub(crate) fn directories(&self, group: &str) -> Vec<PathBuf> {
        let name = self.name(group);
        let mounts = host::cgroup_mounts().into_iter();
        mounts.map(|mount| mount.join("floe").join(&name)).filter(|path| path.is_dir()).collect()
    }

    /// A file of a group in the hierarchy that has the controller, with the names of v1 and v2.
    pub(crate) fn file(&self, group: &str, controller: &str, names: [&str; 2]) -> Option<PathBuf> {
        let name = self.name(group);
        let directory = host::controller(controller)?.join("floe").join(name);
        names.into_iter().map(|file| directory.join(file)).find(|path| path.exists())
    }
}

/// The groups of a process, in the hierarchies that are mounted.
pub(crate) fn groups_of(pid: i32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let shown = |names: &str| match names {
        "" => mounts.contains(" - cgroup2 "),
        names => mounts.lines().any(|line| line.contains(" - cgroup ") && line.ends_with(names)),
    };
    let lines = text.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
    lines.filter(|line| shown(line[1])).map(|line| line[2].to_owned()).collect()
}

impl Drop for Groups {
    fn drop(&mut self) {
        // What cannot be removed is found below.
        let _ = self.command(["rm", "--recursive", "--force", "%"]).output();
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        let left = self.directories("%");
        assert!(std::thread::panicking() || left.is_empty(), "left behind: {left:#?}");
    }
}
