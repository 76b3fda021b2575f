//! Header lines: of heads and of trailers.

/// A part of a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    start: u32,
    end: u32,
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

/// A line that is not `name: value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedLine;

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
        // Heads are far smaller; a larger one could not be read at all.
        let position = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Self {
            start: position(start),
            end: position(end),
        }
    }

    /// This part of `head`.
    pub fn of(self, head: &[u8]) -> &[u8] {
        &head[self.start as usize..self.end as usize]
    }

    /// Where it begins.
    pub fn start(self) -> usize {
        self.start as usize
    }

    /// Where it ends.
    pub fn end(self) -> usize {
        self.end as usize
    }
}

impl Field {
    /// Takes the line that begins at `start` of `head` and ends before `end`; `has_cr_lf` says whether CR LF follows. Puts
    /// its name in lower case.
    pub fn parse(
        head: &mut [u8],
        start: usize,
        end: usize,
        has_cr_lf: bool,
        sender: Sender,
    ) -> Result<Self, MalformedLine> {
        let line = &mut head[start..end];
        let name_len = lower_token(line);
        if name_len == 0 {
            return Err(MalformedLine);
        }
        let blanks = match sender {
            Sender::Client => 0,
            Sender::Process => leading_blanks(&line[name_len..]),
        };
        let (name, rest) = line.split_at_mut(name_len);
        if rest.get(blanks) != Some(&b':') {
            return Err(MalformedLine);
        }
        let value = &rest[blanks + 1..];
        if !is_text(value) {
            return Err(MalformedLine);
        }
        let before = leading_blanks(value);
        let value = trim_blanks(value);
        let is_plain = has_cr_lf && blanks == 0 && before == 1 && value.len() + 1 == rest.len() - 1;
        let is_plain = is_plain && rest[1] == b' ';
        let value_start = start + name_len + blanks + 1 + before;
        Ok(Self {
            kind: Kind::of(name),
            name: Span::new(start, start + name_len),
            value: Span::new(value_start, value_start + value.len()),
            plain: is_plain.then(|| Span::new(start, end + 2)),
        })
    }

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
            13 => &[(b"authorization", Self::Head), (b"content-range", Self::Head)],
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
    let trailing = bytes.iter().rev().take_while(|byte| is_blank(**byte));
    &bytes[..bytes.len() - trailing.count()]
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

/// Whether all bytes may be in a value (RFC 9110, section 5.5). Eight of them are looked at together.
pub fn is_text(bytes: &[u8]) -> bool {
    const LEN: usize = size_of::<u64>();
    match bytes.last_chunk::<LEN>() {
        None => bytes.iter().all(|byte| is_text_byte(*byte)),
        // The last eight may overlap those before them.
        Some(last) => {
            let (chunks, _) = bytes.as_chunks::<LEN>();
            chunks.iter().all(are_text) && are_text(last)
        }
    }
}

#[inline]
fn are_text(bytes: &[u8; 8]) -> bool {
    const ONES: u64 = u64::MAX / 0xff;
    const HIGHS: u64 = ONES * 0x80;
    let word = u64::from_ne_bytes(*bytes);
    // A byte below 0x20 borrows from its highest bit, and one that equals 0x7f is zero after the comparison and borrows too.
    let below_blank = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete & HIGHS;
    // Tabs are rare, and borrows may report a byte that is none of these.
    below_blank | is_delete == 0 || bytes.iter().all(|byte| is_text_byte(*byte))
}

fn is_text_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
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
        let field = Field::parse(&mut head, 0, line.len(), true, sender).ok()?;
        Some((head, field))
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
            "", ":", ": x", "x", " x: y", "x y: z", "x\0: y", "x: \0", "x: \r", "x: \x7f", "x: \x0b",
            "x: \x0c", "é: x",
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
