//! Header lines: of heads and of trailers.

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: usize,
    end: usize,
}

/// One header line.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// What it is to a proxy.
    pub kind: Kind,
    /// Its name, in lower case.
    pub name: Span,
    /// Its value, without surrounding blanks.
    pub value: Span,
    /// The whole line, if it reads `name: value` and ends in CR LF: it can be copied as it stands.
    pub plain: Option<Span>,
}

/// The headers that a proxy reads, removes or sets itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Forwarded unchanged.
    Other,
    /// `Host`.
    Host,
    /// `Content-Length`.
    ContentLength,
    /// `Transfer-Encoding`.
    TransferEncoding,
    /// `Connection`.
    Connection,
    /// Another header that concerns one connection only.
    HopByHop,
    /// `TE`.
    Te,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `Date`.
    Date,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// Another header that states who a request comes from.
    ForwardedOther,
    /// `Forwarded`, and names that CGI-like servers read as one of the others.
    ForwardedFalse,
    /// A header that would change a message's meaning, routing or authorisation if it came as a trailer.
    Head,
}

/// Who has sent a header line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// A client: the line is refused in case of doubt.
    Client,
    /// A process: blanks before the colon, an old fault of servers, are removed (RFC 9112, section 5.1).
    Process,
}

impl Span {
    /// From `start` up to `end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// This part of `head`.
    pub fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start..self.end]
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end
    }
}

/// What begins at a place of a head.
#[derive(Debug, Clone, Copy)]
pub enum Line {
    /// A header line, and where the next one begins.
    Field(Field, usize),
    /// The empty line, and where it ends.
    Empty(usize),
    /// The beginning of a line.
    Incomplete,
}

/// Bytes that are no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadLine {
    /// It does not end in CR LF.
    End,
    /// It is not `name: value`.
    Content,
}

impl Line {
    /// Takes the line that begins at `start` of `head`, in one pass. Puts its name in lower case.
    ///
    /// # Errors
    /// The bytes cannot become a header line.
    pub fn parse(head: &mut [u8], start: usize, sender: Sender) -> Result<Self, BadLine> {
        let Some((_, line)) = head.split_at_mut_checked(start) else {
            return Ok(Self::Incomplete);
        };
        let name_len = lower_token(line);
        let mut colon = name_len;
        match line.get(colon) {
            None => return Ok(Self::Incomplete),
            Some(b':') if name_len > 0 => {}
            Some(b'\r' | b'\n') if name_len == 0 => {
                let end = line_end(line, 0, sender)?;
                return Ok(end.map_or(Self::Incomplete, |(_, next)| Self::Empty(start + next)));
            }
            Some(b' ' | b'\t') if name_len > 0 && sender == Sender::Process => {
                colon += leading_blanks(&line[colon..]);
                match line.get(colon) {
                    None => return Ok(Self::Incomplete),
                    Some(b':') => {}
                    Some(_) => return Err(BadLine::Content),
                }
            }
            Some(_) => return Err(BadLine::Content),
        }
        let value = &line[colon + 1..];
        let Some((end, next)) = line_end(line, colon + 1 + text_len(value), sender)? else {
            return Ok(Self::Incomplete);
        };
        let before = leading_blanks(&line[colon + 1..end]);
        let first = colon + 1 + before;
        let last = end - trailing_blanks(&line[first..end]);
        let is_plain = colon == name_len && last == end && next == end + 2;
        let is_plain = is_plain && before == 1 && line[colon + 1] == b' ';
        let field = Field {
            kind: Kind::of(&line[..name_len]),
            name: Span::new(start, start + name_len),
            value: Span::new(start + first, start + last),
            plain: is_plain.then(|| Span::new(start, start + next)),
        };
        Ok(Self::Field(field, start + next))
    }
}

/// Where the line ends whose text ends at `end`, and where the next one begins; none if more bytes are needed to know.
fn line_end(line: &[u8], end: usize, sender: Sender) -> Result<Option<(usize, usize)>, BadLine> {
    match (line.get(end), line.get(end + 1)) {
        (None, _) | (Some(b'\r'), None) => Ok(None),
        (Some(b'\r'), Some(b'\n')) => Ok(Some((end, end + 2))),
        (Some(b'\n'), _) if sender == Sender::Process => Ok(Some((end, end + 1))),
        (Some(b'\n'), _) => Err(BadLine::End),
        (Some(_), _) => Err(BadLine::Content),
    }
}

impl Field {
    /// Appends the line as it is forwarded.
    pub fn write(&self, head: &[u8], to: &mut Vec<u8>) {
        match self.plain {
            Some(line) => to.extend_from_slice(line.of(head)),
            None => write_line(to, self.name.of(head), self.value.of(head)),
        }
    }

    /// Whether it may be a trailer: not if it changed a message's framing, routing or authorisation when it were merged into
    /// the head (RFC 9110, section 6.5.1).
    pub fn is_safe_trailer(&self) -> bool {
        matches!(self.kind, Kind::Other | Kind::Date)
    }
}

impl Kind {
    /// Of a name in lower case.
    fn of(name: &[u8]) -> Self {
        // By length first: most names need one comparison.
        let known: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            6 => &[(b"expect", Self::Expect), (b"cookie", Self::Head)],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Head)],
            9 => &[(b"forwarded", Self::ForwardedFalse)],
            10 => &[
                (b"connection", Self::Connection),
                (b"keep-alive", Self::HopByHop),
                (b"set-cookie", Self::Head),
            ],
            12 => &[(b"content-type", Self::Head)],
            13 => &[
                (b"authorization", Self::Head),
                (b"content-range", Self::Head),
            ],
            14 => &[(b"content-length", Self::ContentLength)],
            15 => &[(b"x-forwarded-for", Self::ForwardedFor)],
            16 => &[
                (b"content-encoding", Self::Head),
                (b"proxy-connection", Self::HopByHop),
                (b"x-forwarded-host", Self::ForwardedHost),
            ],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"x-forwarded-proto", Self::ForwardedProto),
            ],
            18 => &[(b"proxy-authenticate", Self::HopByHop)],
            19 => &[(b"proxy-authorization", Self::HopByHop)],
            _ => &[],
        };
        let known = known.iter().find(|(text, _)| *text == name);
        match (known, name.first()) {
            (Some((_, kind)), _) => *kind,
            (None, Some(b'x')) => Self::of_x(name),
            (None, _) => Self::Other,
        }
    }

    /// `X-Forwarded-*`, also written with `_`.
    fn of_x(name: &[u8]) -> Self {
        let is = |text: &[u8]| {
            let same = |(a, b): (&u8, &u8)| a == b || (*a == b'_' && *b == b'-');
            name.len() >= text.len() && name.iter().zip(text).all(same)
        };
        let is_real_ip = name.len() == b"x-real-ip".len() && is(b"x-real-ip");
        match is(b"x-forwarded-") || is_real_ip {
            true if name.contains(&b'_') => Self::ForwardedFalse,
            true => Self::ForwardedOther,
            false => Self::Other,
        }
    }
}

/// Appends `name: value` and a line end.
pub fn write_line(to: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    for part in [name, b": ", value, b"\r\n"] {
        to.extend_from_slice(part);
    }
}

/// Appends a number in decimal digits.
pub fn write_decimal(to: &mut Vec<u8>, number: u64) {
    write_digits(to, number, 10);
}

/// Appends a number in hexadecimal digits.
pub fn write_hex(to: &mut Vec<u8>, number: u64) {
    write_digits(to, number, 16);
}

fn write_digits(to: &mut Vec<u8>, mut number: u64, base: u64) {
    // The longest is 20 digits.
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b"0123456789abcdef"[(number % base) as usize];
        number /= base;
        if number == 0 {
            break;
        }
    }
    to.extend_from_slice(&digits[at..]);
}

/// `bytes` without blanks around them (RFC 9110, section 5.6.3).
pub fn trim_blanks(bytes: &[u8]) -> &[u8] {
    let bytes = &bytes[leading_blanks(bytes)..];
    &bytes[..bytes.len() - trailing_blanks(bytes)]
}

fn trailing_blanks(bytes: &[u8]) -> usize {
    let last = bytes.iter().rev();
    last.take_while(|byte| is_blank(**byte)).count()
}

/// How many blanks `bytes` begin with.
pub fn leading_blanks(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| is_blank(**byte)).count()
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// RFC 9110, section 5.6.2.
pub fn is_token(byte: u8) -> bool {
    LOWER_TOKENS[byte as usize] != 0
}

/// Puts the token that `bytes` begin with in lower case. Returns its length.
fn lower_token(bytes: &mut [u8]) -> usize {
    for (len, byte) in bytes.iter_mut().enumerate() {
        let lower = LOWER_TOKENS[*byte as usize];
        if lower == 0 {
            return len;
        }
        *byte = lower;
    }
    bytes.len()
}

/// The bytes of tokens, in lower case; 0 for others.
static LOWER_TOKENS: [u8; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        if (byte as u8).is_ascii_alphanumeric() {
            table[byte] = (byte as u8).to_ascii_lowercase();
        }
        byte += 1;
    }
    let others = b"!#$%&'*+-.^_`|~";
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = others[index];
        index += 1;
    }
    table
};

/// Whether all bytes may be in a value (RFC 9110, section 5.5).
pub fn is_text(bytes: &[u8]) -> bool {
    text_len(bytes) == bytes.len()
}

/// How many bytes before the first one that cannot be in a value. Eight of them are looked at together.
fn text_len(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let others = others(*word);
        // Tabs are rare. In doubt the bytes are looked at one by one.
        if others != 0 {
            let sure = others.trailing_zeros() as usize / 8;
            let len = index * 8 + sure;
            return len + text_len_slow(&bytes[len..]);
        }
    }
    words.len() * 8 + text_len_slow(rest)
}

fn text_len_slow(bytes: &[u8]) -> usize {
    let is_text = |byte: &u8| *byte == b'\t' || !byte.is_ascii_control();
    match bytes.iter().position(|byte| !is_text(byte)) {
        Some(len) => len,
        None => bytes.len(),
    }
}

/// Marks the first control byte among these, if there is one, in its highest bit, and perhaps later ones.
fn others(bytes: [u8; 8]) -> u64 {
    const ONES: u64 = u64::MAX / 0xff;
    let word = u64::from_le_bytes(bytes);
    // What is below 0x20 borrows from its highest bit; what equals 0x7f is zero after the comparison, and borrows too. Only
    // bytes after one of these can be marked falsely.
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_blank | is_delete) & (ONES * 0x80)
}

/// A length in bytes: digits and nothing else.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    // 18 digits cannot overflow, and no sign or space gets through.
    let is_number = (1..=18).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let value = |sum: u64, digit: &u8| sum * 10 + u64::from(digit - b'0');
    is_number.then(|| digits.iter().fold(0, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str, sender: Sender) -> Option<(Vec<u8>, Field)> {
        let mut head = format!("{line}\r\n").into_bytes();
        match Line::parse(&mut head, 0, sender) {
            Ok(Line::Field(field, next)) if next == head.len() => Some((head, field)),
            _ => None,
        }
    }

    #[test]
    fn lines_are_forwarded_in_one_form() {
        for (line, plain) in [
            ("X-A: b c", true),
            ("x:y", false),
            ("x:  y", false),
            ("x:\ty", false),
            ("x: y ", false),
            ("x:", false),
            ("x: ", true),
        ] {
            let (head, field) = parse(line, Sender::Client).unwrap();
            assert_eq!(field.plain.is_some(), plain, "{line:?}");
            let mut out = Vec::new();
            field.write(&head, &mut out);
            let (name, value) = line.split_once(':').unwrap();
            let expected = format!("{}: {}\r\n", name.to_lowercase(), value.trim());
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn malformed_lines_are_refused() {
        for line in [
            "", ":", ": x", "x", " x: y", "x y: z", "x\0: y", "x: \0", "x: \r", "x: \x7f",
            "x: \x0b", "x: \x0c", "é: x",
        ] {
            assert!(parse(line, Sender::Client).is_none(), "{line:?}");
            assert!(parse(line, Sender::Process).is_none(), "{line:?}");
        }
        assert!(parse("x : y", Sender::Client).is_none());
        assert!(parse("x\t: y", Sender::Process).is_some());
    }

    #[test]
    fn names_that_state_an_origin_are_recognised() {
        for (name, kind) in [
            ("X-Forwarded-For", Kind::ForwardedFor),
            ("x-forwarded-port", Kind::ForwardedOther),
            ("x-real-ip", Kind::ForwardedOther),
            ("X_Forwarded_For", Kind::ForwardedFalse),
            ("x-forwarded_host", Kind::ForwardedFalse),
            ("x_real-ip", Kind::ForwardedFalse),
            ("forwarded", Kind::ForwardedFalse),
            ("x-real-ipx", Kind::Other),
            ("x-forwarded", Kind::Other),
            ("x", Kind::Other),
        ] {
            let (_, field) = parse(&format!("{name}: a"), Sender::Client).unwrap();
            assert_eq!(field.kind, kind, "{name}");
        }
    }

    #[test]
    fn lengths_are_digits_only() {
        assert_eq!(decimal(b"0"), Some(0));
        assert_eq!(decimal(b"007"), Some(7));
        assert_eq!(
            decimal(b"999999999999999999"),
            Some(999_999_999_999_999_999)
        );
        for bad in [
            "",
            "1000000000000000000",
            "-1",
            "+1",
            "1 1",
            "0x1",
            "1.",
            "\u{661}",
        ] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn every_byte_is_judged_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            let is_text_byte = byte == b'\t' || (byte >= b' ' && byte != 0x7f);
            for len in [1, 7, 8, 9, 16, 23] {
                for at in 0..len {
                    let mut text = vec![b'a'; len];
                    text[at] = byte;
                    assert_eq!(is_text(&text), is_text_byte, "{byte} at {at} of {len}");
                }
            }
            assert_eq!(is_token(byte), lower_token(&mut [byte]) == 1);
        }
    }

    #[test]
    fn numbers_are_written_in_digits() {
        for number in [0, 9, 10, 255, 65_536, u64::MAX] {
            let (mut decimal, mut hex) = (Vec::new(), Vec::new());
            write_decimal(&mut decimal, number);
            write_hex(&mut hex, number);
            assert_eq!(decimal, number.to_string().as_bytes());
            assert_eq!(hex, format!("{number:x}").as_bytes());
        }
    }
}
