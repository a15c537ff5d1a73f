//! Where a redirect leads: a `Location` value against the URL it came from (RFC 3986 §5). Pure.

use ureq::http::Uri;

/// The absolute URL that `location` means at `base`; `None` if it is none.
pub fn resolve(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or_default().trim();
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let text = if has_scheme(location) {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else {
        let (path, query) = location.split_once('?').map_or((location, None), |(path, query)| (path, Some(query)));
        let path = if path.is_empty() {
            base.path().to_owned()
        } else if path.starts_with('/') {
            without_dots(path)
        } else {
            let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            without_dots(&format!("{directory}/{path}"))
        };
        let query = query.or(if location.is_empty() { base.query() } else { None });
        match query {
            Some(query) => format!("{scheme}://{authority}{path}?{query}"),
            None => format!("{scheme}://{authority}{path}"),
        }
    };
    let uri: Uri = text.parse().ok()?;
    (uri.scheme().is_some() && uri.authority().is_some()).then_some(uri)
}

fn has_scheme(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
    })
}

/// `path` with `.` and `..` taken out.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut parts = path.split('/').skip(1).peekable();
    while let Some(part) = parts.next() {
        let last = parts.peek().is_none();
        match part {
            "." | ".." => {
                if part == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            _ => kept.push(part),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Uri, resolve};

    #[test]
    fn each_form_of_location_leads_where_the_standard_says() {
        let base: Uri = "http://a:81/b/c/d?q".parse().unwrap();
        for (location, expected) in [
            ("https://x/y", "https://x/y"),
            ("//g/h", "http://g/h"),
            ("/g", "http://a:81/g"),
            ("g", "http://a:81/b/c/g"),
            ("./g", "http://a:81/b/c/g"),
            ("g/", "http://a:81/b/c/g/"),
            ("../g", "http://a:81/b/g"),
            ("../../../../g", "http://a:81/g"),
            ("..", "http://a:81/b/"),
            (".", "http://a:81/b/c/"),
            ("/./g/../h", "http://a:81/h"),
            ("?y", "http://a:81/b/c/d?y"),
            ("g?y/./x", "http://a:81/b/c/g?y/./x"),
            ("g#part", "http://a:81/b/c/g"),
            ("", "http://a:81/b/c/d?q"),
            ("#part", "http://a:81/b/c/d?q"),
            ("/x:y", "http://a:81/x:y"),
            ("/next?to=http://z", "http://a:81/next?to=http://z"),
        ] {
            assert_eq!(resolve(&base, location).unwrap().to_string(), expected, "{location}");
        }
        assert_eq!(resolve(&base, "mailto:x"), None);
        assert_eq!(resolve(&base, "http://"), None);
    }

    proptest! {
        #[test]
        fn no_location_panics_and_each_answer_is_absolute(location in "\\PC{0,40}") {
            let base: Uri = "https://example.com/a/b?c".parse().unwrap();
            if let Some(uri) = resolve(&base, &location) {
                prop_assert!(uri.scheme().is_some() && uri.host().is_some());
            }
        }
    }
}
