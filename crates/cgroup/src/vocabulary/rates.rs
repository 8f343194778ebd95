//! Rates of block devices: `8:0 rbps=10M wbps=max`.

use crate::resources::{DeviceNumber, Limit};

use super::value::{bytes, print_bytes};

/// The four rates, in the order in which v2 prints them; the first two count bytes.
pub(super) const NAMES: [&str; 4] = ["rbps", "wbps", "riops", "wiops"];

/// The rates of one device per second; `None` leaves one as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rates {
    pub device: DeviceNumber,
    pub rates: [Option<Limit>; 4],
}

impl Rates {
    /// Devices and their rates as people write them; also v2's `io.max`, a line a device.
    pub(super) fn parse_all(text: &str) -> Result<Vec<Self>, String> {
        let wrong = || super::Unit::Rates.expectation();
        let mut all: Vec<Self> = Vec::new();
        for part in text.split([';', '\n']) {
            let mut words = part.split_ascii_whitespace();
            let Some(first) = words.next() else { continue };
            let mut rates = [None; 4];
            for word in words {
                let (name, value) = word.split_once('=').ok_or_else(wrong)?;
                let index = NAMES.iter().position(|known| *known == name);
                let index = index.ok_or_else(wrong)?;
                rates[index] = Some(match value {
                    "max" => Limit::Unlimited,
                    // v1 takes 0 for no limit, v2 not at all.
                    number => {
                        let rate = bytes(number).filter(|rate| *rate > 0);
                        Limit::Max(rate.ok_or_else(wrong)?)
                    }
                });
            }
            let device = device(first).ok_or_else(wrong)?;
            if rates == [None; 4] || all.iter().any(|known| known.device == device) {
                return Err(wrong());
            }
            all.push(Self { device, rates });
        }
        if all.is_empty() {
            Err(wrong())
        } else {
            Ok(all)
        }
    }

    /// As people write it; what is as it was is left out.
    pub(super) fn print(&self) -> String {
        let mut text = self.device.to_string();
        for (index, (name, rate)) in NAMES.iter().zip(self.rates).enumerate() {
            match rate {
                None => {}
                Some(Limit::Unlimited) => text.push_str(&format!(" {name}=max")),
                Some(Limit::Max(rate)) if index < 2 => {
                    text.push_str(&format!(" {name}={}", print_bytes(rate)));
                }
                Some(Limit::Max(rate)) => text.push_str(&format!(" {name}={rate}")),
            }
        }
        text
    }

    /// A line for v2's `io.max`.
    pub(super) fn line(&self) -> String {
        let mut text = self.device.to_string();
        for (name, rate) in NAMES.iter().zip(self.rates) {
            match rate {
                None => {}
                Some(Limit::Unlimited) => text.push_str(&format!(" {name}=max")),
                Some(Limit::Max(rate)) => text.push_str(&format!(" {name}={rate}")),
            }
        }
        text
    }
}

/// `8:0`
pub(super) fn device(word: &str) -> Option<DeviceNumber> {
    let (major, minor) = word.split_once(':')?;
    let number = |digits: &str| {
        let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| digits.parse().ok())?
    };
    Some(DeviceNumber {
        major: number(major)?,
        minor: number(minor)?,
    })
}
