//! What the processor says about itself.

/// Offset and size, in the non-compacted xsave area, of an extended state component.
///
/// `None`: this processor lacks it. Intel SDM volume 1, section 13.2.
#[cfg(target_arch = "x86_64")]
#[must_use]
pub fn extended_state_component(number: u32) -> Option<(usize, usize)> {
    use std::arch::x86_64::__cpuid_count;
    let leaf = __cpuid_count(0xd, number);
    (leaf.eax != 0).then_some((leaf.ebx as usize, leaf.eax as usize))
}
