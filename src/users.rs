//! The users of this machine by name, as `/etc/passwd` lists them. Names that come from elsewhere (a directory service)
//! are not known here: where a name is asked of a person, a number is taken too. Everything here blocks shortly.

use std::fs;

const FILE: &str = "/etc/passwd";

/// One user of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its number.
    pub id: u32,
    /// The number of its first group.
    pub group: u32,
}

/// The user with the name `text`, or with that number.
pub fn find(text: &str) -> Option<Listed> {
    let number = text.parse().ok();
    among(&read(), |user| user.name == text || number == Some(user.id))
}

/// The user with the number `id`.
pub fn with_id(id: u32) -> Option<Listed> {
    among(&read(), |user| user.id == id)
}

/// Nothing where there is no list: nobody has a name then.
fn read() -> String {
    fs::read_to_string(FILE).unwrap_or_default()
}

fn among(list: &str, wanted: impl Fn(&Listed) -> bool) -> Option<Listed> {
    list.lines().filter_map(parse).find(wanted)
}

/// `NAME:PASSWORD:ID:GROUP:…`; nothing for a line that is none.
fn parse(line: &str) -> Option<Listed> {
    let mut fields = line.split(':');
    let (name, id, group) = (fields.next()?, fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Listed { name: name.to_owned(), id, group })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_by_number_and_broken_lines_are_passed_over() {
        let list =
            "root:x:0:0:root:/root:/bin/sh\n\nbroken\nalso:x:none:1\nnats:x:104:110::/:/bin/false\n104:x:7:8::/:\n";
        let nats = Listed { name: "nats".into(), id: 104, group: 110 };
        assert_eq!(among(list, |user| user.name == "nats"), Some(nats.clone()));
        assert_eq!(among(list, |user| user.id == 104), Some(nats));
        assert_eq!(among(list, |user| user.name == "also"), None);
        assert_eq!(find("root").map(|user| user.id), Some(0));
        assert_eq!(with_id(0).map(|user| user.name), Some("root".into()));
    }
}
