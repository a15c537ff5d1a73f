//! Text from outside, cut to a length that may travel on.

/// The longest beginning of `text` of at most `limit_bytes` that ends between characters.
pub fn prefix(text: &str, limit_bytes: usize) -> &str {
    let mut end = limit_bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::prefix;

    #[test]
    fn characters_stay_whole() {
        assert_eq!((prefix("größe", 3), prefix("größe", 4), prefix("größe", 99)), ("gr", "grö", "größe"));
        assert_eq!((prefix("€", 2), prefix("", 5)), ("", ""));
    }
}
