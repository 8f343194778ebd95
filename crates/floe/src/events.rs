//! Writes to the file of events.

use crate::store::Store;
use crate::store::container::Container;

/// Records what a command did. Events are for onlookers: a failure to write one fails nothing.
pub(crate) fn record(store: &Store, container: &Container, action: &str, more: &[(&str, &str)]) {
    let mut details = vec![("name", container.record.name.as_str())];
    details.extend_from_slice(more);
    let _ = monitor::events::append(&store.events(), &container.record.id, action, &details);
}
