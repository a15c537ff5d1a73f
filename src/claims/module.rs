//! The token inside a WebAssembly module: finding it, hashing what it covers, putting it there
//! (`protocol/claims.md §3`).
//!
//! The token sits in a custom section and vouches for every byte of the module's canonical form except itself. Reading
//! allocates nothing but the token, however the module is made.

use data_encoding::HEXUPPER;
use sha2::{Digest, Sha256};

use super::{
    body::Actor,
    keys::KeyPair,
    section::{self, Encoding, MAX_NESTING, Section, Sections},
    token::{Claims, MAX_TOKEN_BYTES, Token, WASCAP_REVISION},
};
use crate::error::{Error, Result};

/// The section that holds the token.
const SECTION: &[u8] = b"wasmcloud_jwt";
/// Its name in modules signed by tools of before 2022.
const LEGACY_SECTION: &[u8] = b"jwt";

/// A token found in a module. Its dates, signature and issuer are not checked yet.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// The token.
    pub token: Token<Actor>,
    /// Upper-case hex SHA-256 of the module's canonical form.
    pub module_hash: String,
    /// Whether the token vouches for exactly this module. Below claims revision 3 the field does not enforce it.
    pub hash_matches: bool,
}

impl Embedded {
    /// Whether the claims are of a revision whose hash must match.
    pub fn hash_is_binding(&self) -> bool {
        self.token.claims().wascap_revision.unwrap_or(0) >= WASCAP_REVISION
    }
}

/// Finds the token in `module`; `None` when it is not signed.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid): the module or its token is malformed.
/// [`Kind::Limit`](crate::error::Kind::Limit): the token is too long.
pub fn extract(module: &[u8]) -> Result<Option<Embedded>> {
    // The hash first: walking all sections also proves that there is nothing malformed behind the token.
    let module_hash = canonical_hash(module)?;
    let Some(text) = find_token(module, 0)? else { return Ok(None) };
    if text.len() > MAX_TOKEN_BYTES {
        return Err(Error::limit(format!(
            "the token in the module has {} bytes; at most {MAX_TOKEN_BYTES} are read",
            text.len()
        )));
    }
    let text = std::str::from_utf8(text).map_err(|_| Error::invalid("the token in the module is not text"))?;
    let token = Token::<Actor>::parse(text)?;
    let hash_matches = token.claims().body()?.module_hash == module_hash;
    Ok(Some(Embedded { token, module_hash, hash_matches }))
}

/// Upper-case hex SHA-256 of the module's canonical form.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid): malformed.
pub fn canonical_hash(module: &[u8]) -> Result<String> {
    let mut hasher = Sha256::new();
    canonical(module, 0, &mut |bytes| hasher.update(bytes))?;
    Ok(HEXUPPER.encode(&hasher.finalize()))
}

/// Signs `module` with the account `issuer`: sets the hash in `claims` and appends the token, in place of any that is
/// there. What it answers is the module in canonical form, so signing twice with equal claims gives equal bytes.
///
/// # Errors
/// [`Kind::Invalid`](crate::error::Kind::Invalid): malformed module. [`Kind::Usage`](crate::error::Kind::Usage): the
/// claims say nothing, or a key has the wrong role.
pub fn sign(module: &[u8], mut claims: Claims<Actor>, issuer: &KeyPair) -> Result<(Vec<u8>, Token<Actor>)> {
    let mut signed = Vec::with_capacity(module.len() + 2048);
    canonical(module, 0, &mut |bytes| signed.extend_from_slice(bytes))?;
    let body = claims.wascap.as_mut().ok_or_else(|| Error::usage("claims without a 'wascap' object sign nothing"))?;
    body.module_hash = HEXUPPER.encode(&Sha256::digest(&signed));

    let token = Token::sign(claims, issuer)?;
    let text = token.text().as_bytes();
    let content_bytes = 1 + SECTION.len() + text.len();
    let too_long = |_| Error::limit(format!("the token has {content_bytes} bytes, more than a section can hold"));
    let (length, used) = section::minimal_leb(u32::try_from(content_bytes).map_err(too_long)?);
    signed.push(section::CUSTOM);
    signed.extend_from_slice(&length[..used]);
    signed.push(SECTION.len() as u8);
    signed.extend_from_slice(SECTION);
    signed.extend_from_slice(text);
    Ok((signed, token))
}

fn is_token(section: &Section<'_>) -> Result<bool> {
    Ok(section.custom()?.is_some_and(|(name, _)| name == SECTION || name == LEGACY_SECTION))
}

/// The first token in file order. The current name counts only at the top, the legacy one at any depth.
fn find_token(module: &[u8], depth: u8) -> Result<Option<&[u8]>> {
    for section in Sections::new(module)? {
        let section = section?;
        match section.custom()? {
            Some((SECTION, text)) if depth == 0 => return Ok(Some(text)),
            Some((LEGACY_SECTION, text)) => return Ok(Some(text)),
            _ => {}
        }
        if section.is_nested
            && let Some(text) = find_token(section.content, depth + 1)?
        {
            return Ok(Some(text));
        }
    }
    Ok(None)
}

/// Feeds the canonical form to `sink`: without tokens at any depth, and with every length in its shortest form, because
/// linkers pad lengths and signing tools shorten them again before they hash.
fn canonical(module: &[u8], depth: u8, sink: &mut dyn FnMut(&[u8])) -> Result<()> {
    let sections = Sections::new(module)?;
    sink(preamble(&sections));
    for section in sections {
        let section = section?;
        if is_token(&section)? {
            continue;
        }
        let length = content_length(&section, depth)?;
        let (leb, used) = section::minimal_leb(length);
        sink(&[section.id]);
        sink(&leb[..used]);
        if section.is_nested {
            canonical(section.content, depth + 1, sink)?;
        } else {
            sink(section.content);
        }
    }
    Ok(())
}

/// Length of a section's content in canonical form. Each level walks what is below it once more, so the work is bounded
/// by input length times [`MAX_NESTING`].
fn content_length(section: &Section<'_>, depth: u8) -> Result<u32> {
    // The canonical form is never longer than the input, whose length was read as u32.
    let Section { content, is_nested, .. } = *section;
    if !is_nested {
        return Ok(content.len() as u32);
    }
    if depth >= MAX_NESTING {
        return Err(Error::invalid(format!("components are nested more than {MAX_NESTING} deep")));
    }
    let sections = Sections::new(content)?;
    let mut total = preamble(&sections).len() as u32;
    for section in sections {
        let section = section?;
        if !is_token(&section)? {
            let length = content_length(&section, depth + 1)?;
            total += 1 + section::minimal_leb(length).1 as u32 + length;
        }
    }
    Ok(total)
}

fn preamble(sections: &Sections<'_>) -> &'static [u8] {
    match sections.encoding() {
        Encoding::Core => &section::CORE,
        Encoding::Component => &section::COMPONENT,
    }
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;
    use crate::claims::{Now, Role};

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../tests/vectors/actor_claims.json")).unwrap()
    }

    fn text<'a>(vectors: &'a Value, path: &str) -> &'a str {
        vectors.pointer(path).unwrap_or_else(|| panic!("no {path}")).as_str().unwrap()
    }

    fn wasm(vectors: &Value, path: &str) -> Vec<u8> {
        HEXLOWER.decode(text(vectors, path).as_bytes()).unwrap()
    }

    fn custom(name: &[u8], content: &[u8]) -> Vec<u8> {
        let body = [&[name.len() as u8], name, content].concat();
        section_bytes(0, &body)
    }

    fn section_bytes(id: u8, content: &[u8]) -> Vec<u8> {
        let (leb, used) = section::minimal_leb(content.len() as u32);
        [&[id], &leb[..used], content].concat()
    }

    #[test]
    fn hashes_are_those_of_the_vectors_however_lengths_are_written() {
        let vectors = vectors();
        for (module, raw, hash) in [
            ("/unsigned_wasm_hex", "/sha256_of_unsigned_raw_bytes", "/module_hash_in_claims"),
            (
                "/padded_leb_variant/unsigned_wasm_hex",
                "/padded_leb_variant/sha256_of_raw_bytes",
                "/padded_leb_variant/module_hash_in_claims",
            ),
        ] {
            let module = wasm(&vectors, module);
            assert_eq!(HEXUPPER.encode(&Sha256::digest(&module)), text(&vectors, raw));
            assert_eq!(canonical_hash(&module).unwrap(), text(&vectors, hash));
        }
        assert_eq!(wat::parse_str(text(&vectors, "/wat")).unwrap(), wasm(&vectors, "/unsigned_wasm_hex"));
    }

    #[test]
    fn signing_gives_the_bytes_of_the_vectors() {
        let vectors = vectors();
        let account = KeyPair::from_seed(text(&vectors, "/account_seed")).unwrap();
        let mut claims = Token::<Actor>::parse(text(&vectors, "/jwt")).unwrap().claims().clone();
        claims.wascap.as_mut().unwrap().module_hash.clear();
        let signed = wasm(&vectors, "/signed_wasm_hex");
        assert_eq!(vectors["padded_leb_variant"]["signed_output_equals_signed_output_of_minimal_variant"], true);
        for unsigned in ["/unsigned_wasm_hex", "/padded_leb_variant/unsigned_wasm_hex", "/signed_wasm_hex"] {
            let (written, token) = sign(&wasm(&vectors, unsigned), claims.clone(), &account).unwrap();
            assert_eq!(written, signed, "{unsigned}");
            assert_eq!(token.text(), text(&vectors, "/jwt"));
        }
        let sections: Vec<_> = Sections::new(&signed)
            .unwrap()
            .map(|section| {
                let section = section.unwrap();
                let name = section.custom().unwrap().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap());
                serde_json::json!({"id": section.id, "len": section.content.len(), "custom_name": name})
            })
            .collect();
        assert_eq!(Value::Array(sections), vectors["signed_sections"]);
        let excerpt = wasm(&vectors, "/custom_section_bytes_up_to_name_hex");
        assert!(signed.windows(excerpt.len()).any(|window| window == excerpt));
    }

    #[test]
    fn extraction_finds_the_token_and_sees_tampering() {
        let vectors = vectors();
        assert_eq!(text(&vectors, "/unsigned_extract_result"), "None");
        assert!(extract(&wasm(&vectors, "/unsigned_wasm_hex")).unwrap().is_none());

        let mut signed = wasm(&vectors, "/signed_wasm_hex");
        let found = extract(&signed).unwrap().unwrap();
        assert!(found.hash_matches && found.hash_is_binding());
        assert_eq!(found.token.text(), text(&vectors, "/jwt"));

        let at = signed.windows(12).position(|window| window == b"__guest_call").unwrap();
        signed[at] = b'X';
        assert!(!extract(&signed).unwrap().unwrap().hash_matches);
    }

    #[test]
    fn other_custom_sections_are_covered_and_the_legacy_name_is_read() {
        let vectors = vectors();
        let unsigned = wasm(&vectors, "/unsigned_wasm_hex");
        let legacy = [unsigned.clone(), custom(b"jwt", text(&vectors, "/jwt").as_bytes())].concat();
        assert!(extract(&legacy).unwrap().unwrap().hash_matches);
        let renamed = [legacy, custom(b"name", b"")].concat();
        assert!(!extract(&renamed).unwrap().unwrap().hash_matches);
    }

    #[test]
    fn nested_tokens_do_not_count_unless_legacy_and_are_never_hashed() {
        let vectors = vectors();
        let jwt = text(&vectors, "/jwt").as_bytes();
        let unsigned = wasm(&vectors, "/unsigned_wasm_hex");
        let component = |inner: &[u8]| [section::COMPONENT.to_vec(), section_bytes(1, inner)].concat();
        let bare = component(&unsigned);
        let nested = component(&[unsigned.clone(), custom(SECTION, jwt)].concat());
        let legacy = component(&[unsigned.clone(), custom(LEGACY_SECTION, jwt)].concat());
        let padded = component(&wasm(&vectors, "/padded_leb_variant/unsigned_wasm_hex"));
        let hash = HEXUPPER.encode(&Sha256::digest(&bare));
        for module in [&bare, &nested, &legacy, &padded] {
            assert_eq!(canonical_hash(module).unwrap(), hash);
        }
        assert!(extract(&nested).unwrap().is_none());
        assert_eq!(extract(&legacy).unwrap().unwrap().token.text().as_bytes(), jwt);

        // The same section in a core module is a type section, not a module.
        let core =
            [section::CORE.to_vec(), section_bytes(1, &[unsigned, custom(LEGACY_SECTION, jwt)].concat())].concat();
        assert!(extract(&core).unwrap().is_none());

        let (signed, _) = sign(
            &nested,
            Claims::new(text(&vectors, "/module_public"), Actor::default(), Now::judge(0, 0)).unwrap(),
            &KeyPair::from_name(Role::Account, "a"),
        )
        .unwrap();
        assert!(extract(&signed).unwrap().unwrap().hash_matches);
        assert_eq!(&signed[..bare.len()], bare);
    }

    #[test]
    fn nesting_is_bounded() {
        let mut module = section::COMPONENT.to_vec();
        for level in 0..200 {
            let refused = level > usize::from(MAX_NESTING);
            assert_eq!(extract(&module).is_err(), refused, "{level}");
            module = [section::COMPONENT.to_vec(), section_bytes(4, &module)].concat();
        }
    }

    #[test]
    fn a_module_cut_short_is_malformed_anywhere() {
        let signed = wasm(&vectors(), "/signed_wasm_hex");
        let mut ends = vec![8];
        for section in Sections::new(&signed).unwrap() {
            let content = section.unwrap().content;
            ends.push(content.as_ptr() as usize - signed.as_ptr() as usize + content.len());
        }
        for cut in 0..signed.len() {
            assert_eq!(extract(&signed[..cut]).is_ok(), ends.contains(&cut), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_without_panic(
            component: bool,
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
        ) {
            let preamble = if component { section::COMPONENT } else { section::CORE };
            let module = [&preamble[..], &bytes].concat();
            let mut canonical_bytes = Vec::new();
            if canonical(&module, 0, &mut |bytes| canonical_bytes.extend_from_slice(bytes)).is_ok() {
                prop_assert!(canonical_bytes.len() <= module.len());
                let mut again = Vec::new();
                canonical(&canonical_bytes, 0, &mut |bytes| again.extend_from_slice(bytes)).unwrap();
                prop_assert_eq!(again, canonical_bytes);
            }
            let _ = extract(&module);
        }

        #[test]
        fn a_flipped_bit_is_never_taken_for_the_signed_module(at: proptest::sample::Index, bit in 0u8..8) {
            let vectors = vectors();
            let mut module = wasm(&vectors, "/signed_wasm_hex");
            let at = at.index(module.len());
            module[at] ^= 1 << bit;
            if let Ok(Some(found)) = extract(&module) {
                prop_assert!(!found.hash_matches || !found.token.is_signed().unwrap_or(false));
            }
        }
    }
}
