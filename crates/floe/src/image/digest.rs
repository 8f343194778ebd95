//! SHA-256 (FIPS 180-4), for the names of blobs.

/// A digest in the making.
pub(super) struct Sha256 {
    state: [u32; 8],
    block: [u8; 64],
    filled: usize,
    length: u64,
}

impl Default for Sha256 {
    fn default() -> Self {
        let state = std::array::from_fn(|index| root_fraction(PRIMES[index], Root::Square));
        Self {
            state,
            block: [0; 64],
            filled: 0,
            length: 0,
        }
    }
}

impl Sha256 {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        self.length += bytes.len() as u64;
        while !bytes.is_empty() {
            let count = bytes.len().min(64 - self.filled);
            self.block[self.filled..self.filled + count].copy_from_slice(&bytes[..count]);
            self.filled += count;
            bytes = &bytes[count..];
            if self.filled == 64 {
                self.compress();
                self.filled = 0;
            }
        }
    }

    /// The digest in hexadecimal.
    pub(super) fn finish(mut self) -> String {
        let bits = self.length.wrapping_mul(8);
        self.update(&[0x80]);
        while self.filled != 56 {
            self.update(&[0]);
        }
        self.update(&bits.to_be_bytes());
        self.state
            .iter()
            .map(|word| format!("{word:08x}"))
            .collect()
    }

    fn compress(&mut self) {
        let mut words = [0_u32; 64];
        for (word, bytes) in words.iter_mut().zip(self.block.chunks_exact(4)) {
            *word = bytes
                .iter()
                .fold(0, |word, byte| word << 8 | u32::from(*byte));
        }
        for index in 16..64 {
            let (a, b) = (words[index - 15], words[index - 2]);
            let low = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let high = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            words[index] = words[index - 16]
                .wrapping_add(low)
                .wrapping_add(words[index - 7])
                .wrapping_add(high);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.state;
        for (word, constant) in words.iter().zip(&CONSTANTS) {
            let rotated = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let first = h
                .wrapping_add(rotated)
                .wrapping_add((e & f) ^ (!e & g))
                .wrapping_add(*constant)
                .wrapping_add(*word);
            let rotated = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let second = rotated.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e) = (g, f, e, d.wrapping_add(first));
            (d, c, b, a) = (c, b, a, first.wrapping_add(second));
        }
        for (state, word) in self.state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *state = state.wrapping_add(word);
        }
    }
}

/// The first 64 primes; the algorithm's constants are fractions of their roots.
const PRIMES: [u64; 64] = primes();
const CONSTANTS: [u32; 64] = {
    let mut constants = [0; 64];
    let mut index = 0;
    while index < 64 {
        constants[index] = root_fraction(PRIMES[index], Root::Cube);
        index += 1;
    }
    constants
};

const fn primes() -> [u64; 64] {
    let mut primes = [0; 64];
    let (mut count, mut candidate) = (0, 2);
    while count < 64 {
        let (mut index, mut prime) = (0, true);
        while index < count {
            if candidate % primes[index] == 0 {
                prime = false;
            }
            index += 1;
        }
        if prime {
            primes[count] = candidate;
            count += 1;
        }
        candidate += 1;
    }
    primes
}

#[derive(Clone, Copy)]
enum Root {
    Square,
    Cube,
}

/// The first 32 bits of the fraction of a root, found bit by bit in whole numbers: the largest r
/// with r² ≤ n·2⁶⁴, or r³ ≤ n·2⁹⁶.
const fn root_fraction(n: u64, root: Root) -> u32 {
    let mut low: u128 = 0;
    let mut high: u128 = 1 << 37;
    while high - low > 1 {
        let middle = low.midpoint(high);
        let fits = match root {
            Root::Square => middle * middle <= (n as u128) << 64,
            Root::Cube => middle * middle * middle <= (n as u128) << 96,
        };
        if fits {
            low = middle;
        } else {
            high = middle;
        }
    }
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the fraction is the low half"
    )]
    {
        low as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_the_standard() {
        for (text, digest) in [
            (
                "",
                "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            ),
            (
                "abc",
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            ),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            let mut hash = Sha256::default();
            hash.update(text.as_bytes());
            assert_eq!(hash.finish(), digest, "{text}");
        }
        let mut hash = Sha256::default();
        for _ in 0..1000 {
            hash.update(&[b'a'; 1000]);
        }
        let million = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
        assert_eq!(hash.finish(), million);
    }
}
