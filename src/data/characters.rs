//! Characters of a file: unpacked (gzip, zstd), decoded (UTF-8, UTF-16 by its byte order mark), and handed
//! out in blocks or lines, so that a file of any size takes little memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use encoding_rs::{Decoder, DecoderResult, Encoding, UTF_8};
use flate2::bufread::MultiGzDecoder;

use super::format;
use crate::base::files::io_error;
use crate::base::{Error, Kind, Result};

/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;

/// First bytes of packed files that are not read, and what packed them.
const REFUSED: &[(&[u8], &str)] = &[
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"\x1f\x9d", "compress"),
];
const GZIP: &[u8] = b"\x1f\x8b";
const ZSTD: &[u8] = b"\x28\xb5\x2f\xfd";
/// Byte order marks of UTF-32, which begins as UTF-16 does in the one order.
const UTF_32: [&[u8]; 2] = [b"\xff\xfe\0\0", b"\0\0\xfe\xff"];
const PARQUET: &[u8] = b"PAR1";

/// The characters of one file, in blocks.
pub(super) struct Characters {
    path: PathBuf,
    bytes: Box<dyn BufRead + Send>,
    decoder: Decoder,
    /// Bytes taken in.
    taken: u64,
    ended: bool,
}

impl Characters {
    /// Opens a file. Packing and encoding are recognised by its first bytes, not by its name.
    ///
    /// # Errors
    /// A file that is not there, is packed otherwise or is no text.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = format::opened(path)?;
        let mut bytes = unpacked(path, file)?;
        let head = head(path, &mut bytes)?;
        refuse(path, &head)?;
        let (encoding, _) = Encoding::for_bom(&head).unwrap_or((UTF_8, 0));
        let decoder = encoding.new_decoder_with_bom_removal();
        Ok(Self { path: path.into(), bytes, decoder, taken: 0, ended: false })
    }

    /// The next block; `None` at the end.
    fn block(&mut self) -> Result<Option<String>> {
        let mut text = String::new();
        while text.is_empty() && !self.ended {
            let bytes = self.bytes.fill_buf().map_err(|e| unreadable(&self.path, &e))?;
            self.ended = bytes.is_empty();
            let room = self.decoder.max_utf8_buffer_length_without_replacement(bytes.len());
            text.reserve(room.unwrap_or(4 * bytes.len() + 16));
            let (result, read) =
                self.decoder.decode_to_string_without_replacement(bytes, &mut text, self.ended);
            self.bytes.consume(read);
            self.taken += read as u64;
            if let DecoderResult::Malformed(..) = result {
                return Err(self.malformed());
            }
        }
        Ok((!text.is_empty()).then_some(text))
    }

    fn malformed(&self) -> Error {
        let encoding = self.decoder.encoding().name();
        Error::new(Kind::Data, format!("not {encoding} text: byte {} fits no character", self.taken))
            .at(self.path.display())
            .hint("convert it to UTF-8, for example with iconv -f LATIN1 -t UTF-8")
    }

    /// The lines, without what ends them.
    pub(super) fn lines(self) -> Lines {
        Lines { characters: self, held: String::new(), from: 0 }
    }
}

impl Iterator for Characters {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.block().transpose()
    }
}

/// The lines of a file.
pub(super) struct Lines {
    characters: Characters,
    held: String,
    /// Bytes of `held` that were handed out.
    from: usize,
}

impl Lines {
    fn line(&mut self) -> Result<Option<String>> {
        let mut looked = self.from;
        loop {
            if let Some(end) = self.held[looked..].find('\n').map(|at| looked + at) {
                let line = self.held[self.from..end].to_string();
                self.from = end + 1;
                return Ok(Some(line));
            }
            self.held.drain(..std::mem::take(&mut self.from));
            looked = self.held.len();
            match self.characters.block()? {
                Some(block) => self.held += &block,
                None => return Ok((!self.held.is_empty()).then(|| std::mem::take(&mut self.held))),
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.line().transpose()
    }
}

/// The file's bytes without gzip or zstd around them.
fn unpacked(path: &Path, file: File) -> Result<Box<dyn BufRead + Send>> {
    let mut bytes = BufReader::with_capacity(BLOCK, file);
    let head = head(path, &mut bytes)?;
    if head.starts_with(GZIP) {
        return Ok(Box::new(BufReader::with_capacity(BLOCK, MultiGzDecoder::new(bytes))));
    }
    if head.starts_with(ZSTD) {
        let decoder = zstd::Decoder::with_buffer(bytes).map_err(|e| unreadable(path, &e))?;
        return Ok(Box::new(BufReader::with_capacity(BLOCK, decoder)));
    }
    Ok(Box::new(bytes))
}

/// The first bytes, which stay to be read.
fn head(path: &Path, bytes: &mut dyn BufRead) -> Result<Vec<u8>> {
    bytes.fill_buf().map(<[u8]>::to_vec).map_err(|e| unreadable(path, &e))
}

/// Refuses what is packed otherwise, parquet, UTF-32, and UTF-16 without its mark.
fn refuse(path: &Path, head: &[u8]) -> Result<()> {
    let wrong = |what: &str, hint: &str| Err(Error::new(Kind::Data, what).at(path.display()).hint(hint));
    if let Some((_, packer)) = REFUSED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return wrong(
            &format!("compressed with {packer}, which is not read"),
            "unpack it, or pack it with gzip or zstd",
        );
    }
    if head.starts_with(GZIP) || head.starts_with(ZSTD) {
        return wrong("compressed twice", "unpack it once");
    }
    if head.starts_with(PARQUET) {
        return wrong("a parquet file under another name", "let its name end in .parquet");
    }
    if UTF_32.iter().any(|mark| head.starts_with(mark)) {
        return wrong("UTF-32 text, which is not read", "convert it to UTF-8 with iconv -f UTF-32 -t UTF-8");
    }
    let zeros = head.iter().filter(|&&byte| byte == 0).count();
    if Encoding::for_bom(head).is_none() && zeros * 5 > head.len() {
        return wrong(
            "no text: it is full of zero bytes",
            "if it is UTF-16, convert it to UTF-8 with iconv -f UTF-16LE -t UTF-8",
        );
    }
    Ok(())
}

/// A failed read: of the disk where the system says so, else of what the file holds.
fn unreadable(path: &Path, e: &std::io::Error) -> Error {
    if e.raw_os_error().is_some() {
        return io_error(path, "read", e);
    }
    Error::new(Kind::Data, format!("cannot unpack: {e}"))
        .at(path.display())
        .hint("the file is damaged or cut short: copy it again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn read(bytes: &[u8]) -> Result<String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        Characters::open(&path)?.collect()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    fn utf16(text: &str, big: bool) -> Vec<u8> {
        let units = std::iter::once(0xfeff).chain(text.encode_utf16());
        units.flat_map(|u: u16| if big { u.to_be_bytes() } else { u.to_le_bytes() }).collect()
    }

    /// Longer than a block, with characters of every length across its end.
    fn long() -> String {
        "aé日🎉\r\n".repeat(20_000)
    }

    #[test]
    fn text_comes_whole_however_it_is_packed_and_encoded() {
        let text = long();
        let halves = [gzip(&text.as_bytes()[..90_000]), gzip(&text.as_bytes()[90_000..])].concat();
        let packed = [
            text.clone().into_bytes(),
            gzip(text.as_bytes()),
            halves,
            zstd::encode_all(text.as_bytes(), 3).unwrap(),
            [zstd::encode_all(b"".as_slice(), 3).unwrap(), zstd::encode_all(text.as_bytes(), 3).unwrap()]
                .concat(),
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            utf16(&text, false),
            utf16(&text, true),
            gzip(&utf16(&text, false)),
        ];
        for (i, bytes) in packed.iter().enumerate() {
            assert!(read(bytes).unwrap() == text, "{i}");
        }
        assert_eq!(read(b"").unwrap(), "");
    }

    #[test]
    fn what_is_no_text_is_named() {
        let bare_utf16: Vec<u8> = "plain words".encode_utf16().flat_map(u16::to_le_bytes).collect();
        let cut = gzip(long().as_bytes());
        let cases: [(&[u8], &str); 9] = [
            (b"BZh91AY", "bzip2"),
            (b"\xfd7zXZ\0abc", "xz"),
            (b"PK\x03\x04abc", "zip"),
            (&gzip(&gzip(b"a")), "compressed twice"),
            (b"PAR1", "parquet"),
            (b"\xff\xfe\0\0a\0\0\0", "UTF-32"),
            (&bare_utf16, "UTF-16"),
            (b"caf\xe9 au lait", "not UTF-8 text: byte"),
            (&cut[..cut.len() / 2], "damaged or cut short"),
        ];
        for (bytes, named) in cases {
            let e = read(bytes).unwrap_err();
            assert!(e.kind == Kind::Data && e.to_string().contains(named), "{named}: {e}");
        }
        let e = read(b"a\xe9").unwrap_err();
        assert!(e.to_string().contains("a.txt") && e.to_string().contains("iconv"), "{e}");
    }

    #[test]
    fn lines_end_at_line_feeds_and_the_last_needs_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.txt");
        let lines = |text: &str| -> Vec<String> {
            std::fs::write(&path, text).unwrap();
            Characters::open(&path).unwrap().lines().collect::<Result<_>>().unwrap()
        };
        assert_eq!(lines("a\n\nb"), ["a", "", "b"]);
        assert_eq!(lines("a\n"), ["a"]);
        assert!(lines("").is_empty());
        let long = "x".repeat(3 * BLOCK);
        assert_eq!(lines(&format!("{long}\n{long}\nend\n")), [long.clone(), long, "end".into()]);
    }
}
