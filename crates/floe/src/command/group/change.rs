//! Changing groups: all that is asked, or nothing.
//!
//! Problem: a change of several groups is many `mkdir`s and writes; any may be refused, and the
//! command may be killed between any two. Solution: under one lock, (1) make the missing groups,
//! written down before they are made; (2) plan all values against the groups' files, where what
//! the host lacks is refused; (3) write down each value's way back; (4) write the values;
//! (5) rename the new book into place, which forgets the way back. After a refusal in (1) to (4)
//! the way back is gone at once, after a kill by the next command. Which group goes first cannot
//! be known (v1 wants a child's share of the processors below its parent's at every moment), so
//! groups whose values are refused are tried again after the others.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use anyhow::{Context, Result, anyhow, bail};
use cgroup::plan::{Place, Write};
use cgroup::vocabulary::{Assignment, Reading, Step, Unit};
use cgroup::{Controller, Group, Name};
use monitor::clock::Moment;

use super::Groups;
use super::book::{Asked, Book, Record, Undo, lock};

/// What a command wants of one group.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) name: Name,
    pub(super) assignments: Vec<Assignment>,
    /// To whom it is to belong: `Some(None)` is root.
    pub(super) user: Option<Option<u32>>,
    /// A definition file says so.
    pub(super) defined: bool,
    /// What the host lacks is left out, with a note.
    pub(super) lenient: bool,
}

impl Wish {
    pub(super) fn new(name: Name, assignments: Vec<Assignment>) -> Self {
        Self {
            name,
            assignments,
            user: None,
            defined: false,
            lenient: false,
        }
    }
}

/// Holds the lock, the book, and the way back.
#[derive(Debug)]
pub(super) struct Change<'a> {
    groups: &'a Groups,
    pub(super) book: Book,
    _lock: OwnedFd,
}

/// Takes back, or finishes, what a floe left that was killed at work.
pub(super) fn repair(groups: &Groups) -> Result<()> {
    if Book::read(&groups.store)?.journal.is_empty() {
        return Ok(());
    }
    // Another command is at work: nothing to repair.
    match lock(&groups.store, false)? {
        Some(lock) => Change::with(groups, lock).map(drop),
        None => Ok(()),
    }
}

impl<'a> Change<'a> {
    /// Waits for the lock.
    pub(super) fn begin(groups: &'a Groups) -> Result<Self> {
        let lock = lock(&groups.store, true)?.context("lock groups")?;
        Self::with(groups, lock)
    }

    fn with(groups: &'a Groups, lock: OwnedFd) -> Result<Self> {
        let mut change = Self {
            groups,
            book: Book::read(&groups.store)?,
            _lock: lock,
        };
        if !change.book.journal.is_empty() {
            change
                .way_back()
                .context("repair what a killed floe left")?;
        }
        change.forget_the_gone();
        Ok(change)
    }

    /// Does what is wished, for all groups or for none. Groups that are missing are made, with
    /// those above them.
    pub(super) fn carry_out(mut self, wishes: &[Wish]) -> Result<()> {
        let former = self.book.groups.clone();
        let result = self.try_to(wishes);
        if result.is_err() {
            self.book.groups = former;
            // The first error is the one to tell; what cannot be taken back is told beside it.
            if let Err(error) = self.way_back() {
                crate::output::error(&error);
            }
        }
        result
    }

    fn try_to(&mut self, wishes: &[Wish]) -> Result<()> {
        let mut made = Vec::new();
        for wish in wishes {
            self.make(&wish.name, &mut made)?;
        }
        let mut plans: Vec<(Wish, Group, Vec<Step>)> = Vec::new();
        for mut wish in wishes.iter().cloned() {
            let group = self.prepared(&wish.name)?;
            if wish.lenient {
                leave_out(&group, &mut wish.assignments);
            }
            let steps = group.plan_values(&wish.assignments)?;
            plans.push((wish, group, steps));
        }
        for (wish, _, steps) in &plans {
            let undo = steps.iter().filter_map(|step| undo(&wish.name, step));
            self.book.journal.extend(undo);
            if wish.user.is_some() {
                let user = self.book.groups.get(wish.name.as_str());
                self.book.journal.push(Undo::Owned {
                    name: wish.name.to_string(),
                    user: user.and_then(|record| record.user),
                });
            }
        }
        self.book.write(&self.groups.store)?;
        settle(&plans, |(_, group, steps)| Ok(group.carry_out_all(steps)?))?;
        for (wish, group, _) in &plans {
            if let Some(user) = wish.user {
                own(group, user)?;
            }
        }
        for (wish, group, _) in &plans {
            self.remember(wish, group);
        }
        self.book.journal.clear();
        self.book.write(&self.groups.store)
    }

    /// Makes a group and those above it, each written down first.
    fn make(&mut self, name: &Name, made: &mut Vec<Name>) -> Result<()> {
        if self.groups.exists(name) {
            return Ok(());
        }
        if let Some(parent) = name.parent() {
            self.make(&parent, made)?;
        }
        self.book.journal.push(Undo::Made {
            name: name.to_string(),
        });
        self.book.write(&self.groups.store)?;
        let mut group = self.groups.named(name);
        group.create()?;
        let group = self.groups.find(name)?;
        let record = Record {
            identity: group.identity().unwrap_or_default(),
            created: Moment::now().to_string(),
            creator: rustix::process::geteuid().as_raw(),
            ..Record::default()
        };
        self.book.groups.insert(name.to_string(), record);
        made.push(name.clone());
        Ok(())
    }

    /// The group with every controller that can reach it, and with every hierarchy's directory
    /// there: one may have been removed by hand.
    fn prepared(&self, name: &Name) -> Result<Group> {
        let mut group = self.groups.named(name);
        group.create().with_context(|| format!("group `{name}`"))?;
        Ok(group)
    }

    fn remember(&mut self, wish: &Wish, group: &Group) {
        let identity = group.identity().unwrap_or_default();
        let name = wish.name.to_string();
        let known = self.book.record(&name, Some(identity)).cloned();
        let mut record = known.unwrap_or_else(|| Record {
            identity,
            created: Moment::now().to_string(),
            creator: rustix::process::geteuid().as_raw(),
            ..Record::default()
        });
        record.defined |= wish.defined;
        if let Some(user) = wish.user {
            record.user = user;
        }
        for assignment in &wish.assignments {
            let key = assignment.key.to_string();
            if assignment.value.is_none() {
                record.values.remove(&key);
                continue;
            }
            let asked = Asked {
                requested: assignment.text(),
                set: print(group, assignment),
                defined: wish.defined,
            };
            record.values.insert(key, asked);
        }
        self.book.groups.insert(name, record);
    }

    /// Removes groups, the deepest first; what they used has been written down. One that fails
    /// does not keep the others.
    pub(super) fn remove(mut self, names: &[Name]) -> Result<()> {
        let removing = names.iter().map(|name| Undo::Removing {
            name: name.to_string(),
        });
        self.book.journal = removing.collect();
        self.book.write(&self.groups.store)?;
        self.way_back()
    }

    /// Goes through the journal from its end, and forgets it. Goes on after an error.
    fn way_back(&mut self) -> Result<()> {
        let journal: Vec<Undo> = std::mem::take(&mut self.book.journal)
            .into_iter()
            .rev()
            .collect();
        let result = settle(&journal, |undo| self.step_back(undo));
        // The values that the interrupted change had not reached are in the book as before.
        self.forget_the_gone();
        self.book.write(&self.groups.store)?;
        result
    }

    fn step_back(&self, undo: &Undo) -> Result<()> {
        let find = |name: &str| -> Result<Option<Group>> {
            let name = Name::parse(name)?;
            Ok(Group::find(
                &self.groups.layout,
                &name,
                self.groups.rootless,
            ))
        };
        match undo {
            Undo::Made { name } | Undo::Removing { name } => match find(name)? {
                Some(group) => Ok(group.remove()?),
                None => Ok(()),
            },
            Undo::Wrote {
                name,
                place,
                file,
                value,
            } => {
                let step = Step {
                    write: Write {
                        place: parse_place(place)?,
                        file: file.clone(),
                        value: value.clone(),
                        otherwise: None,
                        optional: false,
                    },
                    former: Some(value.clone()),
                };
                match find(name)? {
                    Some(group) => Ok(group.take_back(&[step])?),
                    None => Ok(()),
                }
            }
            Undo::Owned { name, user } => match find(name)? {
                Some(group) => own(&group, *user),
                None => Ok(()),
            },
        }
    }

    fn forget_the_gone(&mut self) {
        let groups = self.groups;
        self.book.groups.retain(|name, record| {
            let found = Name::parse(name)
                .ok()
                .and_then(|name| Group::find(&groups.layout, &name, groups.rootless));
            found.is_some_and(|group| group.identity() == Some(record.identity))
        });
    }
}

/// Drops the values that this host cannot have.
fn leave_out(group: &Group, assignments: &mut Vec<Assignment>) {
    assignments.retain(|assignment| {
        if let Err(error) = group.plan_values(std::slice::from_ref(assignment)) {
            crate::output::note(&format!("left out: {error}"));
            return false;
        }
        true
    });
}

/// Does something for each, and again for those for which it failed, as long as that gets on.
fn settle<T>(items: &[T], mut act: impl FnMut(&T) -> Result<()>) -> Result<()> {
    let mut left: Vec<&T> = items.iter().collect();
    loop {
        let mut failed = Vec::new();
        let mut first = None;
        for item in &left {
            if let Err(error) = act(item) {
                failed.push(*item);
                first.get_or_insert(error);
            }
        }
        match first {
            None => return Ok(()),
            Some(error) if failed.len() == left.len() => return Err(error),
            Some(_) => left = failed,
        }
    }
}

/// Gives a group to a user, or back to root.
fn own(group: &Group, user: Option<u32>) -> Result<()> {
    match user {
        None => group.take_from_user()?,
        Some(uid) => {
            let kept = group.delegate_to_user(uid, primary_group(uid))?;
            let kept: Vec<&String> = kept
                .iter()
                .filter(|name| !name.starts_with("name="))
                .collect();
            if !kept.is_empty() {
                let kept: Vec<&str> = kept.iter().map(|name| name.as_str()).collect();
                crate::output::note(&format!(
                    "{} stay root's: on v1 their values do not hold for groups below",
                    kept.join(", ")
                ));
            }
        }
    }
    Ok(())
}

fn primary_group(uid: u32) -> u32 {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let lines = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut fitting = lines.filter(|fields| fields.get(2) == Some(&uid.to_string().as_str()));
    let gid = fitting.find_map(|fields| fields.get(3)?.parse().ok());
    gid.unwrap_or(uid)
}

/// The value as the kernel has it now.
fn print(group: &Group, assignment: &Assignment) -> String {
    let unit = assignment
        .key
        .entry()
        .map_or(Unit::Text, |entry| entry.unit);
    match group.value(&assignment.key) {
        Reading::Has { value, .. } => value.print(unit),
        Reading::Lacks(_) => String::new(),
    }
}

fn undo(name: &Name, step: &Step) -> Option<Undo> {
    Some(Undo::Wrote {
        name: name.to_string(),
        place: match step.write.place {
            Place::V2 => "v2".to_owned(),
            Place::V1(controller) => controller.name().to_owned(),
        },
        file: step.write.file.clone(),
        value: step.former.clone()?,
    })
}

fn parse_place(text: &str) -> Result<Place> {
    if text == "v2" {
        return Ok(Place::V2);
    }
    match Controller::named(text) {
        Some(controller) => Ok(Place::V1(controller)),
        None => Err(anyhow!("journal: no controller `{text}`")),
    }
}

/// A user of this host, by name or number.
pub(super) fn user(text: &str) -> Result<u32> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").context("read `/etc/passwd`")?;
    let lines = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    let mut fitting = lines.filter(|fields| fields.first() == Some(&text));
    match fitting.find_map(|fields| fields.get(2)?.parse().ok()) {
        Some(uid) => Ok(uid),
        None => bail!("no user `{text}` in /etc/passwd"),
    }
}

/// Names of users by number, as far as there are names.
pub(super) fn user_name(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        if let [name, _, id, ..] = fields.as_slice() {
            names.entry(id).or_insert(name);
        }
    }
    let number = uid.to_string();
    names
        .get(number.as_str())
        .map_or(number.clone(), |name| (*name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_tried_again_while_something_gets_done() {
        let mut done: Vec<u32> = Vec::new();
        let items = [3, 2, 1];
        // Each needs the one before it.
        let result = settle(&items, |item| {
            if *item == 1 || done.contains(&(item - 1)) {
                done.push(*item);
                return Ok(());
            }
            bail!("{item} too early")
        });
        result.unwrap();
        assert_eq!(done, [1, 2, 3]);
        let error = settle(&items, |item| bail!("{item} never")).unwrap_err();
        assert_eq!(error.to_string(), "3 never");
    }

    #[test]
    fn places_are_remembered() {
        for place in [
            Place::V2,
            Place::V1(Controller::Io),
            Place::V1(Controller::Memory),
        ] {
            let step = Step {
                write: Write {
                    place,
                    file: "f".to_owned(),
                    value: "1".to_owned(),
                    otherwise: None,
                    optional: false,
                },
                former: Some("0".to_owned()),
            };
            let name = Name::parse("x").unwrap();
            let Some(Undo::Wrote { place: text, .. }) = undo(&name, &step) else {
                panic!("a step that can be undone")
            };
            assert_eq!(parse_place(&text).unwrap(), place);
        }
    }
}
