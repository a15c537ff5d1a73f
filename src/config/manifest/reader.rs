//! Reads members of a map as what they should be, and remembers what deserves a warning.

use super::tree::{Content, Flaw, Member, Node, Position};
use crate::suggest::hint;

/// Warnings, each at its place.
pub type Warnings = Vec<Flaw>;

/// A map whose members are taken one by one; what is left over was not expected.
pub struct Map<'a> {
    /// Where the map begins.
    pub position: Position,
    what: &'a str,
    members: Vec<&'a Member>,
}

impl<'a> Map<'a> {
    /// The members of `node`; `what` names it in errors: `the component`.
    ///
    /// # Errors
    /// It is no map.
    pub fn of(node: &'a Node, what: &'a str) -> Result<Self, Flaw> {
        match &node.content {
            Content::Map(members) => Ok(Self { position: node.position, what, members: members.iter().collect() }),
            other => Err(Flaw::new(node.position, format!("{what} must be a map, this is {}", other.kind()))),
        }
    }

    /// Takes the member `key`, if it is there and not null.
    pub fn take(&mut self, key: &str) -> Option<&'a Node> {
        let index = self.members.iter().position(|member| member.key == key)?;
        Some(&self.members.remove(index).value).filter(|node| node.content != Content::Null)
    }

    /// Takes the member `key`.
    ///
    /// # Errors
    /// It is missing.
    pub fn need(&mut self, key: &str) -> Result<&'a Node, Flaw> {
        self.take(key).ok_or_else(|| Flaw::new(self.position, format!("{} has no {key}", self.what)))
    }

    /// Takes the member `key` as text that is not empty.
    ///
    /// # Errors
    /// It is missing, empty or something else than text.
    pub fn need_text(&mut self, key: &str, warnings: &mut Warnings) -> Result<(String, Position), Flaw> {
        let node = self.need(key)?;
        let value = text(node, &format!("{key} of {}", self.what), warnings)?;
        if value.is_empty() {
            return Err(Flaw::new(node.position, format!("{key} of {} is empty", self.what)));
        }
        Ok((value, node.position))
    }

    /// Takes the member `key` as text, if it is there.
    ///
    /// # Errors
    /// It is something else than text.
    pub fn take_text(&mut self, key: &str, warnings: &mut Warnings) -> Result<Option<String>, Flaw> {
        self.take(key).map(|node| text(node, &format!("{key} of {}", self.what), warnings)).transpose()
    }

    /// Takes the member `key` as a list, an empty one if it is not there.
    ///
    /// # Errors
    /// It is something else than a list.
    pub fn take_list(&mut self, key: &str) -> Result<&'a [Node], Flaw> {
        let Some(node) = self.take(key) else { return Ok(&[]) };
        match &node.content {
            Content::List(items) => Ok(items),
            other => Err(Flaw::new(
                node.position,
                format!("{key} of {} must be a list, this is {}", self.what, other.kind()),
            )),
        }
    }

    /// Warns of every member that nobody took, with the one of `known` that was probably meant.
    pub fn finish(self, known: &[&str], warnings: &mut Warnings) {
        for member in self.members {
            let meant = hint(&member.key, known.iter().copied());
            warnings.push(Flaw::new(
                member.position,
                format!("{} has no member {:?}{meant}; it is ignored", self.what, member.key),
            ));
        }
    }
}

/// The text of `node`; numbers and booleans become text with a warning, because wadm refuses them.
///
/// # Errors
/// It is something else.
pub fn text(node: &Node, what: &str, warnings: &mut Warnings) -> Result<String, Flaw> {
    let value = match &node.content {
        Content::Text(text) => return Ok(text.clone()),
        Content::Number(number) => number.clone(),
        Content::Bool(value) => value.to_string(),
        other => return Err(Flaw::new(node.position, format!("{what} must be text, this is {}", other.kind()))),
    };
    warnings.push(Flaw::new(node.position, format!("{what} is read as the text \"{value}\"; wadm wants it in quotes")));
    Ok(value)
}
