//! The names that people know keys by, so that a line shows both.

use super::event::Key;

/// Names kept at once: the actors and providers of a large board and as many of its neighbours. The oldest makes room.
pub(super) const CAPACITY: usize = 256;
/// Longest name shown, bytes; longer ones are cut.
const NAME_BYTES: usize = 40;

/// A name as a line shows it.
pub(super) type Name = heapless::String<NAME_BYTES>;

/// A table of keys and names.
pub(super) struct Names {
    entries: heapless::Vec<(Key, Name), CAPACITY>,
    /// Where the next name goes once the table is full.
    next: usize,
}

impl Names {
    pub(super) const fn new() -> Self {
        Self { entries: heapless::Vec::new(), next: 0 }
    }

    /// Sets or, with an empty name, forgets the name of `key`. What is too long to be a key has no name.
    pub(super) fn set(&mut self, key: &str, name: &str) {
        let Ok(key) = Key::try_from(key) else { return };
        let mut end = name.len().min(NAME_BYTES);
        while !name.is_char_boundary(end) {
            end -= 1;
        }
        let Ok(name) = Name::try_from(&name[..end]) else { return };
        let known = self.entries.iter().position(|(known, _)| *known == key);
        match known {
            Some(index) if name.is_empty() => drop(self.entries.swap_remove(index)),
            Some(index) => self.entries[index].1 = name,
            None if name.is_empty() => {}
            None => {
                if let Err(entry) = self.entries.push((key, name)) {
                    self.entries[self.next] = entry;
                    self.next = (self.next + 1) % CAPACITY;
                }
            }
        }
    }

    /// Copies the name of `key` to `into`; whether there is one.
    pub(super) fn get(&self, key: &str, into: &mut Name) -> bool {
        let found = self.entries.iter().find(|(known, _)| known == key);
        if let Some((_, name)) = found {
            into.clone_from(name);
        }
        found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(names: &Names, key: &str) -> Option<String> {
        let mut name = Name::new();
        names.get(key, &mut name).then(|| name.to_string())
    }

    #[test]
    fn names_are_set_changed_and_forgotten() {
        let mut names = Names::new();
        names.set("M1", "echo");
        names.set("M1", "echo two");
        assert_eq!(get(&names, "M1").as_deref(), Some("echo two"));
        names.set("M1", "");
        assert_eq!(get(&names, "M1"), None);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_goes() {
        let mut names = Names::new();
        for index in 0..=CAPACITY {
            names.set(&index.to_string(), "n");
        }
        assert_eq!(names.entries.len(), CAPACITY);
        assert_eq!((get(&names, "0"), get(&names, "1")), (None, Some("n".into())));
    }

    #[test]
    fn a_long_name_is_cut_at_a_character() {
        let mut names = Names::new();
        names.set("M1", &format!("x{}", "ä".repeat(30)));
        assert_eq!(get(&names, "M1").map(|name| name.len()), Some(39));
    }
}
