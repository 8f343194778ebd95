//! Processes with their pids, sessions and groups, as stopped copies of the engine.
//!
//! Problem: a session is inherited at birth or founded by its leader, so children must be born at
//! the right moment. Solution: each process first makes the children that need the session it was
//! born in, then founds its own if it leads one, then makes the others. A child whose session leader
//! lives elsewhere in the tree comes late: its leader begets it, as a sibling or by way of a process
//! that dies at once and leaves it to the parent it shall have.

use rustix::process::Pid;
use sys::ptrace::{self, Event, Options};
use sys::stub_process::{self, CloneArguments};

use super::RestoreOptions;
use super::load::{Plan, Task};
use crate::error::{Context, Error, Result};
use crate::freeze::wait_until_stopped;
use crate::inject::{self, Injector};
use crate::procfs;
use crate::tape::{self, Arena};
use crate::task::STOPPED;

const SCRATCH: u64 = 4096;
const ALL_SIGNALS: u64 = !0;

/// A stopped process in the making.
#[derive(Debug)]
pub(crate) struct Stub {
    pub(crate) pid: Pid,
    /// Calls from the leader.
    pub(crate) injector: Injector,
    /// Calls from each thread but the leader, in the order of the images.
    pub(crate) threads: Vec<Injector>,
    pub(crate) arena: Arena,
    pub(crate) dead: bool,
}

/// All of them, in the order of [`Plan::tasks`]. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Forest {
    pub(crate) stubs: Vec<Stub>,
    /// Leaders of sessions and groups that were dead at the dump, with who must reap them.
    helpers: Vec<(Injector, Injector)>,
    /// What [`Stub`]s have in common: the engine's memory.
    scratch: u64,
    used: Vec<(u64, u64)>,
    spawned: Vec<Pid>,
    released: bool,
    /// Who waits for a session leader that is not there yet.
    late: Vec<Late>,
    /// The root, until [`Forest::grow_all`].
    seed: Option<Injector>,
    /// The end of the engine ends them: the first process of a pid namespace cannot be killed from
    /// inside of it.
    pub(crate) ends_with_engine: bool,
}

impl Drop for Forest {
    fn drop(&mut self) {
        if self.released || self.ends_with_engine {
            return;
        }
        for pid in &self.spawned {
            let _ = rustix::process::kill_process(*pid, rustix::process::Signal::KILL);
        }
        for pid in self.spawned.iter().rev() {
            while let Ok(Event::Stopped { .. }) = ptrace::wait(*pid) {}
        }
    }
}

/// Makes the root of the tree, in new namespaces of the kinds in `flags`; it sleeps. Returns its id
/// where the caller is.
pub(crate) fn create_root(plan: &Plan, options: &RestoreOptions, flags: u64) -> Result<Pid> {
    let root = &plan.tasks[0];
    check_root(root, options)?;
    let pid = pid_of(root.pid)?;
    let sibling = if options.sibling {
        libc::CLONE_PARENT as u64
    } else {
        0
    };
    spawn_root(pid, libc::CLONE_FILES as u64 | sibling | flags)
}

/// Stops the root and makes it ready for calls.
pub(crate) fn adopt_root(plan: &Plan, pid: Pid) -> Result<Forest> {
    let mut forest = Forest {
        stubs: Vec::new(),
        helpers: Vec::new(),
        scratch: 0,
        used: Vec::new(),
        spawned: vec![pid],
        released: false,
        late: Vec::new(),
        seed: None,
        ends_with_engine: plan.namespaces != 0,
    };
    let follow = Options {
        exit_kill: true,
        follow_clones: true,
        suspend_seccomp: false,
    };
    ptrace::seize(pid, follow).during("stop process", pid)?;
    ptrace::interrupt(pid).during("stop process", pid)?;
    wait_until_stopped(pid)?;
    ptrace::set_signal_mask(pid, ALL_SIGNALS).during("block signals of", pid)?;
    let injector = inject::injector_of(pid)?;
    unregister_rseq(&injector)?;
    forest.scratch = injector.map_scratch(SCRATCH)?;
    forest.used = procfs::plain_mappings(pid)?
        .iter()
        .map(|mapping| (mapping.start, mapping.end))
        .collect();
    forest.seed = Some(injector);
    Ok(forest)
}

/// A pid that no process has can still be taken as a group or session, by processes that were
/// killed and whose new parent has not reaped them yet: that passes.
fn spawn_root(pid: Pid, flags: u64) -> Result<Pid> {
    const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        match stub_process::spawn(pid, flags) {
            Ok(made) => return Ok(made),
            Err(sys::Errno::EXIST) if std::time::Instant::now() < deadline && !is_alive(pid) => {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            Err(errno) => return Err(Error::kernel("create process", pid, errno)),
        }
    }
}

fn is_alive(pid: Pid) -> bool {
    procfs::Stat::of(pid).is_ok_and(|stat| stat.state != 'Z')
}

fn check_root(root: &Task, options: &RestoreOptions) -> Result<()> {
    let own = procfs::Stat::of(rustix::process::getpid())?.sid;
    // 0: a session outside of the pid namespace.
    if ![root.pid, own, 0].contains(&root.sid) && !options.shell_job {
        let cause = "its session was not dumped; say it is a shell job (--shell-job)";
        return Err(Error::because("restore process", root.pid, cause));
    }
    if root.is_dead() {
        return Err(Error::because(
            "restore process",
            root.pid,
            "the root of the tree has ended",
        ));
    }
    Ok(())
}

fn pid_of(number: i32) -> Result<Pid> {
    Pid::from_raw(number)
        .ok_or_else(|| Error::because("create process", number, "it is no process id"))
}

/// The kernel kills a task whose registered area vanishes.
fn unregister_rseq(injector: &Injector) -> Result<()> {
    let Ok(found) = ptrace::rseq_configuration(injector.thread) else {
        return Ok(());
    };
    if found.address == 0 {
        return Ok(());
    }
    let arguments = [
        found.address,
        u64::from(found.size),
        1,
        u64::from(found.signature),
        0,
        0,
    ];
    injector
        .call("unregister the rseq area of", libc::SYS_rseq, arguments)
        .map(drop)
}

/// Turns the stub into task `at` with all its descendants.
fn grow(
    plan: &Plan,
    at: usize,
    injector: Injector,
    forest: &mut Forest,
    made: &mut [Option<Stub>],
) -> Result<()> {
    let task = &plan.tasks[at];
    let (late, children): (Vec<usize>, Vec<usize>) = task
        .children
        .iter()
        .partition(|child| leader_elsewhere(plan, at, **child).is_some());
    forest
        .late
        .extend(late.into_iter().map(|child| Late { parent: at, child }));
    let (before, after): (Vec<usize>, Vec<usize>) = children.into_iter().partition(|child| {
        task.is_session_leader()
            && birth_session(plan, *child).is_some_and(|session| session != task.pid)
    });
    for child in before {
        grow_child(plan, child, &injector, forest, made)?;
    }
    if task.is_session_leader() {
        injector.call("create a session for", libc::SYS_setsid, [0; 6])?;
    }
    for child in after {
        grow_child(plan, child, &injector, forest, made)?;
    }
    let own = task
        .mm
        .vmas
        .iter()
        .map(|vma| (vma.start, vma.end.min(crate::arch::TASK_SIZE)));
    let own = own.filter(|(start, end)| start < end);
    let arena = Arena::find(forest.used.iter().copied().chain(own))
        .ok_or_else(|| Error::because("restore process", task.pid, "its memory leaves no room"))?;
    let pid = pid_of(task.pid)?;
    made[at] = Some(Stub {
        pid,
        injector,
        threads: Vec::new(),
        arena,
        dead: task.is_dead(),
    });
    Ok(())
}

fn grow_child(
    plan: &Plan,
    child: usize,
    parent: &Injector,
    forest: &mut Forest,
    made: &mut [Option<Stub>],
) -> Result<()> {
    let pid = plan.tasks[child].pid;
    let session = procfs::Stat::of(parent.thread)?.sid;
    if let Some(wanted) = birth_session(plan, child).filter(|wanted| *wanted != session)
        && wanted != plan.tasks[0].sid
    {
        // Its leader is dead: a helper leads long enough to beget the child as its own sibling.
        let helper = helper(parent, wanted, libc::SYS_setsid, forest)?;
        let flags = (libc::CLONE_FILES | libc::CLONE_PARENT) as u64;
        let injector = clone_stopped(&helper, pid, flags, 0, forest.scratch)?;
        forest.spawned.push(injector.thread);
        return grow(plan, child, injector, forest, made);
    }
    let injector = clone_stopped(
        parent,
        pid,
        libc::CLONE_FILES as u64,
        libc::SIGCHLD as u64,
        forest.scratch,
    )?;
    forest.spawned.push(injector.thread);
    grow(plan, child, injector, forest, made)
}

/// A child that only a member of its session can beget.
#[derive(Clone, Copy, Debug)]
struct Late {
    parent: usize,
    child: usize,
}

/// The leader of the session that a child must be born in, if that lives and is neither its parent
/// nor one of its parent's ancestors.
fn leader_elsewhere(plan: &Plan, parent: usize, child: usize) -> Option<usize> {
    let wanted = birth_session(plan, child)?;
    let leader = plan.tasks.iter().position(|task| task.pid == wanted)?;
    let above = |at: &usize| {
        plan.tasks
            .iter()
            .position(|task| task.children.contains(at))
    };
    let mut line = std::iter::successors(Some(parent), above);
    (!line.any(|ancestor| ancestor == leader)).then_some(leader)
}

fn grow_late(
    plan: &Plan,
    late: Late,
    forest: &mut Forest,
    made: &mut [Option<Stub>],
) -> Result<()> {
    let wanted = leader_elsewhere(plan, late.parent, late.child);
    let leader = wanted.and_then(|leader| Some((leader, made[leader].as_ref()?.injector.clone())));
    let parent = made[late.parent].as_ref().map(|stub| stub.injector.clone());
    let (Some((leader_at, leader)), Some(parent)) = (leader, parent) else {
        forest.late.push(late);
        return Ok(());
    };
    let id = plan.tasks[late.child].pid;
    let files = libc::CLONE_FILES as u64;
    if plan.tasks[late.parent].children.contains(&leader_at) {
        let flags = files | libc::CLONE_PARENT as u64;
        let injector = clone_stopped(&leader, id, flags, 0, forest.scratch)?;
        forest.spawned.push(injector.thread);
        return grow(plan, late.child, injector, forest, made);
    }
    let mortal = mortal(plan, &leader, forest)?;
    let injector = clone_stopped(&mortal, id, files, libc::SIGCHLD as u64, forest.scratch)?;
    forest.spawned.push(injector.thread);
    let reaper = |on: u64| [libc::PR_SET_CHILD_SUBREAPER as u64, on, 0, 0, 0, 0];
    parent.call("make a subreaper of", libc::SYS_prctl, reaper(1))?;
    end_and_reap(&mortal, &leader)?;
    forest.spawned.retain(|spawned| *spawned != mortal.thread);
    parent.call("make no subreaper of", libc::SYS_prctl, reaper(0))?;
    grow(plan, late.child, injector, forest, made)
}

/// A child with any id that nobody else wants.
fn mortal(plan: &Plan, parent: &Injector, forest: &mut Forest) -> Result<Injector> {
    let taken = plan.task_ids();
    let files = libc::CLONE_FILES as u64;
    let mut last = None;
    for id in (300..32_000).rev().filter(|id| !taken.contains(id)) {
        match clone_stopped(parent, id, files, libc::SIGCHLD as u64, forest.scratch) {
            Ok(mortal) => {
                forest.spawned.push(mortal.thread);
                return Ok(mortal);
            }
            Err(error) if error.errno() == Some(sys::Errno::EXIST) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| Error::because("create process", "any", "no id is free")))
}

fn end_and_reap(helper: &Injector, parent: &Injector) -> Result<()> {
    let pid = helper.thread;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).during("end helper", pid)?;
    while let Event::Stopped { .. } = ptrace::wait(pid).during("end helper", pid)? {}
    let number = pid.as_raw_nonzero().get() as u64;
    let arguments = [number, 0, libc::__WALL as u64, 0, 0, 0];
    parent
        .call("reap a helper in", libc::SYS_wait4, arguments)
        .map(drop)
}

/// A process with this id that founds a session or group; [`Forest::dismiss_helpers`] ends it.
fn helper(parent: &Injector, id: i32, call: i64, forest: &mut Forest) -> Result<Injector> {
    if let Some((helper, _)) = forest
        .helpers
        .iter()
        .find(|(helper, _)| helper.thread.as_raw_nonzero().get() == id)
    {
        return Ok(helper.clone());
    }
    let exit_signal = libc::SIGCHLD as u64;
    let helper = clone_stopped(
        parent,
        id,
        libc::CLONE_FILES as u64,
        exit_signal,
        forest.scratch,
    )?;
    forest.spawned.push(helper.thread);
    helper.call("found a session or group as", call, [0; 6])?;
    forest.helpers.push((helper.clone(), parent.clone()));
    Ok(helper)
}

/// The session that a task must be born in; `None`: any will do.
fn birth_session(plan: &Plan, at: usize) -> Option<i32> {
    let task = &plan.tasks[at];
    if !task.is_session_leader() {
        return Some(task.sid);
    }
    let needs = |child: &usize| {
        let wanted = birth_session(plan, *child).filter(|session| *session != task.pid)?;
        leader_elsewhere(plan, at, *child)
            .is_none()
            .then_some(wanted)
    };
    task.children.iter().find_map(needs)
}

/// Makes `parent` clone a task with this id; it is stopped when this returns.
pub(crate) fn clone_stopped(
    parent: &Injector,
    id: i32,
    flags: u64,
    exit_signal: u64,
    scratch: u64,
) -> Result<Injector> {
    let arguments = CloneArguments {
        flags,
        exit_signal,
        set_tid: scratch + 512,
        set_tid_size: 1,
        ..CloneArguments::default()
    };
    let bytes = arguments.bytes();
    let about = |errno| Error::kernel("create task", id, errno);
    sys::process_memory::write_all(parent.thread, scratch, &bytes).map_err(about)?;
    sys::process_memory::write_all(parent.thread, scratch + 512, &id.to_ne_bytes())
        .map_err(about)?;
    let call = [scratch, bytes.len() as u64, 0, 0, 0, 0];
    parent.try_call(libc::SYS_clone3, call)?.map_err(about)?;
    let child = pid_of(id)?;
    wait_until_stopped(child)?;
    ptrace::set_signal_mask(child, ALL_SIGNALS).map_err(about)?;
    Ok(Injector {
        thread: child,
        gadget: parent.gadget,
        base: parent.base.clone(),
        stop_seen: parent.stop_seen.clone(),
    })
}

/// Gives every process its group: first the leaders, then the members.
pub(crate) fn join_groups(plan: &Plan, forest: &mut Forest) -> Result<()> {
    for (at, task) in plan
        .tasks
        .iter()
        .enumerate()
        .filter(|(_, task)| task.pgid > 0)
    {
        let known = plan.tasks.iter().any(|other| other.pid == task.pgid);
        if !known && task.pgid != plan.tasks[0].pgid {
            // Its leader is dead.
            let parent = forest.stubs[at].injector.clone();
            helper(&parent, task.pgid, libc::SYS_setpgid, forest)?;
        }
    }
    join_all(plan, forest)?;
    forest.dismiss_helpers()
}

fn join_all(plan: &Plan, forest: &Forest) -> Result<()> {
    let pairs = || plan.tasks.iter().zip(&forest.stubs);
    for (task, stub) in
        pairs().filter(|(task, _)| task.pgid == task.pid && !task.is_session_leader())
    {
        stub.injector
            .call("create a group for", libc::SYS_setpgid, [0; 6])
            .map(drop)
            .map_err(|error| Error::because("create group", task.pgid, error.to_string()))?;
    }
    for (task, stub) in pairs().filter(|(task, _)| task.pgid != task.pid) {
        let inside = plan.tasks.iter().any(|other| other.pid == task.pgid);
        // rustix's getpgid does not bear a group outside the pid namespace, which is 0.
        if procfs::Stat::of(stub.pid)?.pgid == task.pgid {
            continue;
        }
        let arguments = [0, task.pgid as u64, 0, 0, 0, 0];
        match stub.injector.try_call(libc::SYS_setpgid, arguments)? {
            Ok(_) => {}
            // A group of the shell that is not there any more: the caller's own takes its place.
            Err(_) if !inside => {}
            Err(errno) => return Err(Error::kernel("join group", task.pgid, errno)),
        }
    }
    Ok(())
}

/// Lets the processes die that the images know as zombies.
pub(crate) fn end_the_dead(plan: &Plan, forest: &Forest) -> Result<()> {
    for (task, stub) in plan
        .tasks
        .iter()
        .zip(&forest.stubs)
        .rev()
        .filter(|(task, _)| task.is_dead())
    {
        let about = |errno| Error::kernel("end process", task.pid, errno);
        let signal = (task.exit_code() & 0x7f) as i32;
        if signal == 0 {
            let status = u64::from(task.exit_code() >> 8);
            let registers = &stub.injector.base;
            let call = registers.with_call(
                stub.injector.gadget,
                libc::SYS_exit_group,
                [status, 0, 0, 0, 0, 0],
            );
            call.install(stub.pid).map_err(about)?;
            ptrace::resume(stub.pid, 0).map_err(about)?;
        } else {
            die_of(stub, signal)?;
        }
        while let Event::Stopped { .. } = ptrace::wait(stub.pid).map_err(about)? {
            // SIGKILL does not wait for us.
            let _ = ptrace::resume(stub.pid, signal);
        }
    }
    Ok(())
}

fn die_of(stub: &Stub, signal: i32) -> Result<()> {
    let about = |errno| Error::kernel("end process", stub.pid, errno);
    let wanted = rustix::process::Signal::from_named_raw(signal)
        .ok_or_else(|| Error::because("end process", stub.pid, format!("no signal {signal}")))?;
    // The copy of the engine has the engine's handlers.
    let default = tape::place(&stub.injector, stub.arena, &[0; 32])?;
    let arguments = [signal as u64, default, 0, 8, 0, 0];
    stub.injector
        .try_call(libc::SYS_rt_sigaction, arguments)?
        .ok();
    ptrace::set_signal_mask(stub.pid, 0).map_err(about)?;
    rustix::process::kill_process(stub.pid, wanted).map_err(about)?;
    let _ = ptrace::resume(stub.pid, 0);
    Ok(())
}

impl Forest {
    fn dismiss_helpers(&mut self) -> Result<()> {
        for (helper, parent) in self.helpers.drain(..) {
            end_and_reap(&helper, &parent)?;
            self.spawned.retain(|spawned| *spawned != helper.thread);
        }
        Ok(())
    }

    /// The root, as long as it is alone.
    pub(crate) fn seed(&self) -> Result<&Injector> {
        let cause = "it has grown already";
        self.seed
            .as_ref()
            .ok_or_else(|| Error::because("restore", "the root", cause))
    }

    /// Makes all other processes.
    pub(crate) fn grow_all(&mut self, plan: &Plan) -> Result<()> {
        let Some(root) = self.seed.take() else {
            return Ok(());
        };
        let mut made: Vec<Option<Stub>> = plan.tasks.iter().map(|_| None).collect();
        grow(plan, 0, root, self, &mut made)?;
        while !self.late.is_empty() {
            let before = self.spawned.len();
            for late in std::mem::take(&mut self.late) {
                grow_late(plan, late, self, &mut made)?;
            }
            if self.spawned.len() == before {
                let cause = "its session leader cannot be made before it";
                let pid = plan.tasks[self.late[0].child].pid;
                return Err(Error::because("create process", pid, cause));
            }
        }
        self.stubs = made.into_iter().flatten().collect();
        Ok(())
    }

    /// Memory of every stub that may be written to until it is rebuilt.
    pub(crate) fn scratch(&self) -> u64 {
        self.scratch
    }

    /// Lets everything run: the point of no return.
    pub(crate) fn release(mut self, plan: &Plan) -> Result<()> {
        let quiet = Options::default();
        for stub in self.stubs.iter().filter(|stub| !stub.dead) {
            for thread in stub.threads.iter().chain([&stub.injector]) {
                ptrace::set_options(thread.thread, quiet)
                    .during("release thread", thread.thread)?;
            }
        }
        self.released = true;
        for (task, stub) in plan
            .tasks
            .iter()
            .zip(&self.stubs)
            .filter(|(_, stub)| !stub.dead)
        {
            if task.state() == STOPPED {
                let _ = rustix::process::kill_process(stub.pid, task.stop_signal());
            }
            for thread in stub.threads.iter().chain([&stub.injector]) {
                let _ = ptrace::detach(thread.thread, 0);
            }
        }
        Ok(())
    }
}
