//! W3C trace context: what ties the invocations that one request led to together (`protocol/invocation.md §7`).
//!
//! Carried through unchanged: this host records no spans of its own, so the span it was given stays the parent of what
//! follows. Only a `tracestate` costs an allocation.

use std::{collections::BTreeMap, fmt::Write, sync::Arc};

/// Name of the header and member with the identities.
pub const PARENT: &str = "traceparent";

/// Name of the header and member with what vendors add.
pub const STATE: &str = "tracestate";

/// Length of a `traceparent` of version 00, which is the only one there is.
const PARENT_BYTES: usize = 55;

/// Longest `tracestate` that is carried, bytes, as the standard wants it; a longer one is left out.
const MAX_STATE_BYTES: usize = 512;

/// The context of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    parent: heapless::String<PARENT_BYTES>,
    state: Option<Arc<str>>,
}

impl Trace {
    /// Reads the two headers. One that is malformed is no context.
    pub fn parse(parent: &str, state: Option<&str>) -> Option<Self> {
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let given = |part: &str| part.bytes().any(|byte| byte != b'0');
        let mut parts = parent.split('-');
        let [version, trace, span, flags] = [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
        // Later versions may have more behind; what is before it means the same.
        let ends = version != "00" || parts.next().is_none();
        let sound = hex(version, 2) && version != "ff" && hex(trace, 32) && hex(span, 16) && hex(flags, 2);
        if !(ends && sound && given(trace) && given(span)) {
            return None;
        }
        let parent = heapless::String::try_from(parent.get(..PARENT_BYTES)?).ok()?;
        let plain = |state: &&str| {
            !state.is_empty() && state.len() <= MAX_STATE_BYTES && state.bytes().all(|byte| matches!(byte, b' '..=b'~'))
        };
        Some(Self { parent, state: state.filter(plain).map(Arc::from) })
    }

    /// Reads the context from wherever names have values; `None` where there is none.
    pub fn find<'a>(value: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        Self::parse(value(PARENT)?, value(STATE))
    }

    /// A context of its own: a trace and a span, neither of them zero. It asks for nothing to be recorded.
    pub fn new(trace: u128, span: u64) -> Self {
        let mut parent = heapless::String::new();
        // 55 characters, whatever the numbers.
        let _ = write!(parent, "00-{:032x}-{:016x}-00", trace.max(1), span.max(1));
        Self { parent, state: None }
    }

    /// The `traceparent`.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// The `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }

    /// Both as members of an envelope.
    pub fn members(&self) -> BTreeMap<String, String> {
        let state = self.state().map(|state| (STATE.to_owned(), state.to_owned()));
        std::iter::once((PARENT.to_owned(), self.parent().to_owned())).chain(state).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_carried_as_it_is() {
        let trace = Trace::parse(GOOD, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")).unwrap();
        assert_eq!((trace.parent(), trace.state()), (GOOD, Some("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE")));
        assert_eq!(Trace::find(|name| trace.members().get(name).map(|_| GOOD)).unwrap().parent(), GOOD);
        assert_eq!(Trace::parse(GOOD, None).unwrap().members(), BTreeMap::from([(PARENT.into(), GOOD.into())]));
        assert_eq!(Trace::find(|_| None), None);
        let later = Trace::parse(&format!("cc{}-what-the-future-brings", &GOOD[2..]), None).unwrap();
        assert_eq!(later.parent(), format!("cc{}", &GOOD[2..]));
    }

    #[test]
    fn what_is_malformed_is_no_context() {
        for bad in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &GOOD.to_uppercase(),
            &GOOD.replace("00-4", "ff-4"),
            &GOOD.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &GOOD.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &GOOD.replace('-', "_"),
        ] {
            assert_eq!(Trace::parse(bad, None), None, "{bad}");
        }
        for state in ["", "a\r\nb: c", &"x".repeat(MAX_STATE_BYTES + 1)] {
            assert_eq!(Trace::parse(GOOD, Some(state)).unwrap().state(), None);
        }
    }

    #[test]
    fn a_new_context_can_be_read() {
        for trace in [Trace::new(0, 0), Trace::new(u128::MAX, u64::MAX), Trace::new(7, 9)] {
            assert_eq!(Trace::parse(trace.parent(), None), Some(trace));
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(parent in "\\PC{0,80}", state in "\\PC{0,80}") {
            let _ = Trace::parse(&parent, Some(&state));
        }
    }
}
