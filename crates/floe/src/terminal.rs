//! The caller's own terminal: raw mode, size, detach keys.

use std::io::IsTerminal;
use std::os::fd::AsFd;

use anyhow::{Context, Result};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Standard input in raw mode; its former mode comes back on drop.
#[derive(Debug)]
pub(crate) struct Raw {
    former: Termios,
}

impl Raw {
    /// # Errors
    /// Those of tcsetattr(3).
    pub(crate) fn enter() -> Result<Self> {
        let input = std::io::stdin();
        let former = tcgetattr(&input).context("read terminal mode")?;
        let mut raw = former.clone();
        raw.make_raw();
        tcsetattr(&input, OptionalActions::Now, &raw).context("set terminal to raw mode")?;
        Ok(Self { former })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // There is nothing to do about a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.former);
    }
}

/// Whether standard input is a terminal.
#[must_use]
pub(crate) fn is_input() -> bool {
    std::io::stdin().is_terminal()
}

/// Rows and columns of the caller's terminal, whichever stream is one.
#[must_use]
pub(crate) fn size() -> Option<(u16, u16)> {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    [input.as_fd(), output.as_fd()].into_iter().find_map(|fd| {
        let size = tcgetwinsize(fd).ok()?;
        (size.ws_row > 0 && size.ws_col > 0).then_some((size.ws_row, size.ws_col))
    })
}

/// Looks for the detach keys in what is typed.
#[derive(Debug)]
pub(crate) struct DetachKeys {
    keys: Vec<u8>,
    matched: usize,
}

impl DetachKeys {
    /// No keys: nothing detaches.
    #[must_use]
    pub(crate) fn new(keys: Vec<u8>) -> Self {
        Self { keys, matched: 0 }
    }

    /// Takes typed bytes; gives what to pass on, and whether the keys are complete. Keys that
    /// began but did not complete are passed on late.
    pub(crate) fn feed(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut pass = Vec::with_capacity(typed.len());
        for byte in typed {
            if self.keys.get(self.matched) == Some(byte) {
                self.matched += 1;
                if self.matched == self.keys.len() {
                    return (pass, true);
                }
                continue;
            }
            pass.extend_from_slice(&self.keys[..self.matched]);
            self.matched = usize::from(self.keys.first() == Some(byte));
            if self.matched == 0 {
                pass.push(*byte);
            } else if self.keys.len() == 1 {
                return (pass, true);
            }
        }
        (pass, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_detach_even_in_pieces_and_others_pass() {
        let mut keys = DetachKeys::new(vec![16, 17]);
        assert_eq!(keys.feed(b"ab"), (b"ab".to_vec(), false));
        assert_eq!(keys.feed(&[b'x', 16]), (b"x".to_vec(), false));
        assert_eq!(keys.feed(b"y"), (vec![16, b'y'], false));
        assert_eq!(keys.feed(&[16, 16]), (vec![16], false));
        assert_eq!(keys.feed(&[17, b'z']), (Vec::new(), true));
        let mut none = DetachKeys::new(Vec::new());
        assert_eq!(none.feed(&[16, 17]), (vec![16, 17], false));
    }
}
