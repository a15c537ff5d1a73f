//! A set of artifacts as one file for a USB stick: a tar archive that is an OCI image layout.
//!
//! Used by `latticed artifact export` and `import`. Reading checks all of it before anything of it is used: every blob against
//! its digest, every name against the few that a layout has. Nothing is ever written to where a name in the archive
//! points; content goes into the store by its digest. Memory does not depend on the size of what is in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek, Write},
};

use sha2::Digest as _;
use tar::{Archive, Builder, Entry, EntryType, Header};

use crate::{
    artifact::layout::{self, BLOBS, CONFIG, INDEX, Item, MARKER, MAX_WORDS_BYTES},
    error::{Context, Error, Kind, Result},
    store::{Digest, MAX_BLOB_BYTES},
};

/// Read at once, bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Blobs up to this size are kept in memory while an archive is read, as they may be manifests. Those of `wash push` have
/// 600 bytes.
const MAX_MANIFEST_BYTES: u64 = 16 << 10;

/// All that is kept so, bytes; an archive with more small blobs is refused.
const MAX_KEPT_BYTES: u64 = 8 << 20;

/// Entries of an archive at most: three an artifact, folders, and what other tools add.
const MAX_ENTRIES: usize = 4096;

/// Longest header extension that is passed over, bytes: some tools put times there.
const MAX_EXTENSION_BYTES: u64 = 64 << 10;

/// An archive being written.
pub struct Writer<W: Write> {
    tar: Builder<W>,
    items: Vec<(Item, Digest, u64)>,
}

impl<W: Write> Writer<W> {
    /// Begins an archive in `sink`.
    ///
    /// # Errors
    /// `Storage`.
    pub fn new(sink: W) -> Result<Self> {
        let mut writer = Self { tar: Builder::new(sink), items: Vec::new() };
        writer.append(MARKER.0, MARKER.1.len() as u64, MARKER.1.as_bytes())?;
        writer.append(&blob(Digest::of(CONFIG)), CONFIG.len() as u64, CONFIG)?;
        Ok(writer)
    }

    /// Adds `item`, whose bytes are `content`.
    ///
    /// # Errors
    /// `Limit` for one too many; `Invalid` when there are fewer bytes than said; `Storage`.
    pub fn add(&mut self, item: Item, content: &mut dyn Read) -> Result<()> {
        if self.items.len() == layout::MAX_ARTIFACTS {
            return Err(Error::limit(format!("an archive takes {} artifacts", layout::MAX_ARTIFACTS)));
        }
        let digest = item.digest.ok_or_else(|| Error::internal("an artifact without a digest cannot be exported"))?;
        let mut beginning = Vec::new();
        Read::take(&mut *content, 4)
            .read_to_end(&mut beginning)
            .context(Kind::Storage, "the content cannot be read")?;
        let manifest = layout::manifest(digest, item.bytes, &beginning);
        self.append(&blob(digest), item.bytes, beginning.chain(content))?;
        let manifest_digest = Digest::of(&manifest);
        self.append(&blob(manifest_digest), manifest.len() as u64, &*manifest)?;
        self.items.push((item, manifest_digest, manifest.len() as u64));
        Ok(())
    }

    /// Writes the index and ends the archive.
    ///
    /// # Errors
    /// `Storage`.
    pub fn finish(mut self) -> Result<()> {
        let index = layout::index(&self.items)?;
        self.append(INDEX, index.len() as u64, &*index)?;
        self.tar.into_inner().and_then(|mut sink| sink.flush()).context(Kind::Storage, "cannot write the archive")
    }

    fn append(&mut self, name: &str, bytes: u64, content: impl Read) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_size(bytes);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        let mut counted = Counted { content: content.take(bytes), bytes: 0 };
        self.tar.append_data(&mut header, name, &mut counted).context(Kind::Storage, "cannot write the archive")?;
        match counted.bytes == bytes {
            true => Ok(()),
            false => Err(Error::invalid(format!("{name} has {} bytes where {bytes} were said", counted.bytes))),
        }
    }
}

/// Counts what passes.
struct Counted<R> {
    content: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.content.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

fn blob(digest: Digest) -> String {
    format!("{BLOBS}{digest}")
}

/// Reads and checks all of an archive.
///
/// # Errors
/// `Invalid` for whatever is damaged, missing or has no place in a layout; `Limit`.
pub fn read(file: &mut (impl Read + Seek)) -> Result<Vec<Item>> {
    let (mut marker, mut index) = (None, None);
    let (mut sizes, mut small, mut kept) = (BTreeMap::new(), BTreeMap::new(), 0);
    each(file, |place, entry, bytes| {
        let twice = |there: bool, what: &str| match there {
            true => Err(Error::invalid(format!("it has {what} twice"))),
            false => Ok(()),
        };
        match place {
            Place::Marker => twice(marker.replace(words(entry, bytes)?).is_some(), MARKER.0),
            Place::Index => twice(index.replace(words(entry, bytes)?).is_some(), INDEX),
            Place::Blob(digest) => {
                twice(sizes.insert(digest, bytes).is_some(), &blob(digest))?;
                let mut keep = (bytes <= MAX_MANIFEST_BYTES).then(Vec::new);
                let found = hash(entry, bytes, keep.as_mut())?;
                if found != digest {
                    return Err(Error::invalid(format!(
                        "its blob sha256:{digest} is damaged: its bytes have the digest sha256:{found}; copy the archive \
                         again"
                    )));
                }
                if let Some(content) = keep {
                    kept += bytes;
                    if kept > MAX_KEPT_BYTES {
                        return Err(Error::limit("it holds more small blobs than an archive of artifacts has"));
                    }
                    small.insert(digest, content);
                }
                Ok(())
            }
        }
    })?;
    let missing = |what: &str| Error::invalid(format!("it lacks {what}: it is no image layout, or was cut off"));
    layout::check_marker(&marker.ok_or_else(|| missing(MARKER.0))?)?;
    let mut items = layout::read_index(&index.ok_or_else(|| missing(INDEX))?)?;
    for item in &mut items {
        let manifest = item.manifest.ok_or_else(|| Error::internal("an index gave an artifact without a manifest"))?;
        let text = small.get(&manifest).ok_or_else(|| missing(&format!("the manifest sha256:{manifest}")))?;
        let (digest, bytes) = layout::read_manifest(text)?;
        match sizes.get(&digest) {
            Some(found) if *found == bytes => (item.digest, item.bytes) = (Some(digest), bytes),
            Some(found) => {
                return Err(Error::invalid(format!(
                    "its blob sha256:{digest} has {found} bytes, its manifest says {bytes}"
                )));
            }
            None => return Err(missing(&format!("the blob sha256:{digest}"))),
        }
    }
    Ok(items)
}

/// Hands the content of each of `items`, once a digest, to `take`.
///
/// # Errors
/// Those of `take`; `Invalid` when the archive is another than the one that was read.
pub fn contents(
    file: &mut (impl Read + Seek),
    items: &[Item],
    mut take: impl FnMut(Digest, u64, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut wanted: BTreeSet<Digest> = items.iter().filter_map(|item| item.digest).collect();
    each(file, |place, entry, bytes| match place {
        Place::Blob(digest) if wanted.remove(&digest) => take(digest, bytes, &mut entry.take(bytes)),
        _ => Ok(()),
    })?;
    match wanted.first() {
        None => Ok(()),
        Some(digest) => Err(Error::invalid(format!("the blob sha256:{digest} is gone from the archive"))),
    }
}

/// What has a place in a layout.
enum Place {
    Marker,
    Index,
    Blob(Digest),
}

/// Reads the archive from its beginning and hands each file in it, with its length, to `take`.
fn each(file: &mut (impl Read + Seek), mut take: impl FnMut(Place, &mut dyn Read, u64) -> Result<()>) -> Result<()> {
    file.rewind().context(Kind::Storage, "the archive cannot be read")?;
    let damaged = |cause: io::Error| Error::invalid(format!("it is no whole tar archive: {cause}"));
    let mut archive = Archive::new(file);
    let mut count = 0;
    // Raw: names and sizes as they stand in the headers, and no extension that may say otherwise or fill memory.
    for entry in archive.entries().map_err(damaged)?.raw(true) {
        let mut entry = entry.map_err(damaged)?;
        count += 1;
        if count > MAX_ENTRIES {
            return Err(Error::limit(format!("it has more than {MAX_ENTRIES} entries")));
        }
        let Some((place, bytes)) = place_of(&mut entry)? else { continue };
        take(place, &mut entry, bytes)?;
    }
    Ok(())
}

/// Where an entry belongs; `None` for what is passed over.
fn place_of<R: Read>(entry: &mut Entry<'_, R>) -> Result<Option<(Place, u64)>> {
    let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
    let shown: String = name.chars().take(120).collect();
    let bytes = entry.header().entry_size().map_err(|cause| Error::invalid(format!("{shown:?}: {cause}")))?;
    let name = name.strip_prefix("./").unwrap_or(&name);
    match entry.header().entry_type() {
        EntryType::Regular => {}
        EntryType::Directory if matches!(name.trim_end_matches('/'), "" | "." | "blobs" | "blobs/sha256") => {
            return Ok(None);
        }
        EntryType::XHeader | EntryType::XGlobalHeader if bytes <= MAX_EXTENSION_BYTES => return Ok(None),
        _ => {
            return Err(Error::invalid(format!("{shown:?} is no plain file and has no place in an image layout")));
        }
    }
    let place = match (name, name.strip_prefix(BLOBS)) {
        (name, _) if name == MARKER.0 => Place::Marker,
        (INDEX, _) => Place::Index,
        (_, Some(digest)) => Place::Blob(digest.parse().map_err(|_| no_place(&shown))?),
        // `docker save` and others put one beside it.
        ("manifest.json" | "repositories", _) => return Ok(None),
        _ => return Err(no_place(&shown)),
    };
    if bytes > MAX_BLOB_BYTES as u64 {
        return Err(Error::limit(format!(
            "{shown:?} says that it has {bytes} bytes, more than the {MAX_BLOB_BYTES} an artifact may have"
        )));
    }
    Ok(Some((place, bytes)))
}

fn no_place(shown: &str) -> Error {
    Error::invalid(format!("{shown:?} has no place in an image layout"))
}

fn words(entry: &mut dyn Read, bytes: u64) -> Result<Vec<u8>> {
    if bytes > MAX_WORDS_BYTES {
        return Err(Error::limit(format!("its index has {bytes} bytes, more than the {MAX_WORDS_BYTES} allowed")));
    }
    let mut text = Vec::new();
    entry.take(bytes).read_to_end(&mut text).context(Kind::Invalid, "it breaks off")?;
    Ok(text)
}

fn hash(entry: &mut dyn Read, bytes: u64, mut keep: Option<&mut Vec<u8>>) -> Result<Digest> {
    let mut hash = sha2::Sha256::new();
    let mut piece = vec![0; PIECE_BYTES];
    let mut done = 0;
    while done < bytes {
        let count = entry.read(&mut piece).context(Kind::Invalid, "it breaks off")?;
        if count == 0 {
            return Err(Error::invalid("it was cut off: the archive ends in the middle of a blob"));
        }
        hash.update(&piece[..count]);
        if let Some(keep) = keep.as_mut() {
            keep.extend_from_slice(&piece[..count]);
        }
        done += count as u64;
    }
    Ok(Digest(hash.finalize().into()))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::artifact::inventory::Referred;

    fn item(content: &[u8], name: &str) -> Item {
        Item {
            digest: Some(Digest::of(content)),
            bytes: content.len() as u64,
            references: vec![Referred { reference: format!("registry.example.org/{name}:1"), manifest: None }],
            names: vec![name.into()],
            ..Item::default()
        }
    }

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes).unwrap();
        for (content, name) in [(&b"\0asm module"[..], "echo"), (b"archive", "provider")] {
            writer.add(item(content, name), &mut &*content).unwrap();
        }
        writer.finish().unwrap();
        bytes
    }

    fn refusal(bytes: &[u8]) -> Error {
        read(&mut Cursor::new(bytes)).expect_err("must be refused")
    }

    /// An archive with one entry more, as somebody with bad intentions writes it.
    fn with(name: &[u8], change: impl FnOnce(&mut Header), content: &[u8]) -> Vec<u8> {
        let mut bytes = archive();
        // Before the two zero blocks at its end.
        bytes.truncate(bytes.len() - 1024);
        let mut header = Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_entry_type(EntryType::Regular);
        change(&mut header);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(content);
        bytes.resize(bytes.len().next_multiple_of(512) + 1024, 0);
        bytes
    }

    #[test]
    fn what_is_written_is_read_with_all_that_is_known_of_it() {
        let bytes = archive();
        let items = read(&mut Cursor::new(&bytes)).unwrap();
        let plain = |item: &Item| Item { manifest: None, ..item.clone() };
        let expected = [item(b"\0asm module", "echo"), item(b"archive", "provider")];
        assert_eq!(items.iter().map(plain).collect::<Vec<_>>(), expected);
        let mut taken = Vec::new();
        contents(&mut Cursor::new(&bytes), &items, |digest, bytes, content| {
            let mut all = Vec::new();
            content.read_to_end(&mut all).unwrap();
            assert_eq!((all.len() as u64, Digest::of(&all)), (bytes, digest));
            taken.push(digest);
            Ok(())
        })
        .unwrap();
        assert_eq!(taken.len(), 2);
    }

    #[test]
    fn one_wrong_byte_anywhere_in_the_content_is_found_and_no_cut_passes() {
        let whole = archive();
        let at = |needle: &[u8]| whole.windows(needle.len()).position(|window| window == needle).unwrap();
        for place in [at(b"\0asm module") + 5, at(b"archive"), at(b"schemaVersion"), at(b"imageLayoutVersion"), 3] {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x20;
            assert_eq!(refusal(&bytes).kind(), Kind::Invalid, "byte {place}");
        }
        for length in (0..whole.len() - 1024).step_by(100) {
            let error = refusal(&whole[..length]);
            assert_eq!(error.kind(), Kind::Invalid, "cut to {length}: {error}");
        }
        let mut short = Cursor::new(&whole);
        let lied = Item { bytes: 99, ..item(b"archive", "x") };
        let mut writer = Writer::new(Vec::new()).unwrap();
        assert_eq!(writer.add(lied, &mut &b"archive"[..]).unwrap_err().kind(), Kind::Invalid);
        assert!(read(&mut short).is_ok());
    }

    #[test]
    fn names_sizes_and_kinds_that_a_layout_does_not_have_are_refused() {
        let plain = |_: &mut Header| {};
        for name in [&b"../../etc/passwd"[..], b"/etc/passwd", b"blobs/sha256/../x", b"blobs/sha256/xy", b"x", b"a\xff"]
        {
            let error = refusal(&with(name, plain, b"x"));
            assert!(error.kind() == Kind::Invalid && error.text().contains("no place"), "{error}");
        }
        let link = |kind: EntryType| move |header: &mut Header| header.set_entry_type(kind);
        for kind in [EntryType::Symlink, EntryType::Link, EntryType::Char, EntryType::Fifo, EntryType::GNULongName] {
            assert_eq!(refusal(&with(b"index.json", link(kind), b"")).kind(), Kind::Invalid, "{kind:?}");
        }
        let name = format!("blobs/sha256/{}", "0a".repeat(32));
        let giant = |header: &mut Header| header.set_size(u64::MAX / 2);
        assert_eq!(refusal(&with(name.as_bytes(), giant, b"x")).kind(), Kind::Limit);
        let error = refusal(&with(b"index.json", plain, b"{}"));
        assert!(error.text().contains("twice"), "{error}");
        let own = format!("blobs/sha256/{}", Digest::of(b"archive"));
        assert!(refusal(&with(own.as_bytes(), plain, b"archive")).text().contains("twice"));
        assert_eq!(refusal(b"").kind(), Kind::Invalid);
        assert_eq!(refusal(&[0; 4096]).kind(), Kind::Invalid);
        assert_eq!(refusal(&[7; 4096]).kind(), Kind::Invalid);
    }
}
