//! Enums whose variants are words of the specification.

/// Defines an enum that is read from and written as its words; `NAMES` lists them.
macro_rules! words {
    ($(#[$meta:meta])* pub enum $name:ident {
        $($(#[$doc:meta])* $variant:ident = $word:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$doc])* $variant,)+ }

        impl $name {
            /// The words, in the variants' order.
            pub const NAMES: &'static [&'static str] = &[$($word),+];

            /// The variant's word.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            /// The variant with this word.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                match name { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = $crate::spec::words::word(deserializer)?;
                let unknown = || serde::de::Error::unknown_variant(&word, Self::NAMES);
                Self::from_name(&word).ok_or_else(unknown)
            }
        }
    };
}

pub(super) use words;

/// A text, for the enums' `Deserialize`.
pub(super) fn word<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    serde::Deserialize::deserialize(deserializer)
}

#[cfg(test)]
mod tests {
    use crate::spec::{NamespaceKind, SeccompAction, SeccompArch};

    #[test]
    fn every_word_is_read_as_the_variant_that_writes_it() {
        fn check<T>(names: &[&str], read: fn(&str) -> Option<T>, write: fn(T) -> &'static str) {
            for name in names {
                assert_eq!(read(name).map(write), Some(*name));
            }
        }
        check(
            NamespaceKind::NAMES,
            NamespaceKind::from_name,
            NamespaceKind::name,
        );
        check(
            SeccompAction::NAMES,
            SeccompAction::from_name,
            SeccompAction::name,
        );
        check(
            SeccompArch::NAMES,
            SeccompArch::from_name,
            SeccompArch::name,
        );
        assert_eq!(SeccompArch::from_name("x86_64"), None);
    }
}
