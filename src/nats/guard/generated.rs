//! Words that servers and publishers might say, right and wrong ones, for tests; the same ones for the same seed.

/// A small generator of numbers (SplitMix64).
pub struct Draw(pub u64);

impl Draw {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let draw = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let draw = (draw ^ draw >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        draw ^ draw >> 31
    }

    pub fn below(&mut self, most: usize) -> usize {
        (self.next() % most as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn pick<'a>(&mut self, all: &[&'a [u8]]) -> &'a [u8] {
        all[self.below(all.len())]
    }
}

const WORDS: [&[u8]; 14] = [
    b"a",
    b"a.b",
    b"wasmbus.rpc.default.MX",
    b"a\xff",
    "\u{3000}".as_bytes(),
    "\u{85}".as_bytes(),
    "\u{e9}".as_bytes(),
    b"a\tb",
    b"a\x0bb",
    b"a\rb",
    b"a\nb",
    b"\x1c",
    b"_INBOX.x.y",
    "a\u{2028}b".as_bytes(),
];
const NUMBERS: [&[u8]; 12] = [
    b"0",
    b"1",
    b"2",
    b"7",
    b"18446744073709551615",
    b"18446744073709551616",
    b"4294967296",
    b"+1",
    b"-1",
    b"01",
    b"x",
    b"",
];
const BITS: [&[u8]; 26] = [
    b"NATS/1.0",
    b"NATS/1.",
    b"\r\n",
    b"\n",
    b"\r",
    b" ",
    b":",
    b"X-A",
    b"X-A: b",
    b"Nats-Subject: a",
    b"\t",
    b" 503",
    b" 100 Idle",
    b" 99",
    b" 5033",
    "\u{e9}".as_bytes(),
    "\u{a0}".as_bytes(),
    b"\xff",
    b"\0",
    b"\x7f",
    b"\x0c",
    "\u{2029}".as_bytes(),
    b"traceparent: 0",
    b"\r\n more",
    b"\n\n",
    b"NATS/1.0 503\r\n\r\n",
];
const LINES: [&[u8]; 16] = [
    b"PING\r\n",
    b"PONG\r\n",
    b"+OK\r\n",
    b"+OK x\r\n",
    b"-ERR 'x'\r\n",
    b"-ERR\r\n",
    b"-ERR \r\n",
    b"-ERR '\xff'\r\n",
    b"INFO {}\r\n",
    b"INFO {\"ldm\":true}\r\n",
    b"INFO {\"port\":99999999,\"connect_urls\":[\"\"]}\r\n",
    b"INFO []\r\n",
    b"INFO \r\n",
    b"PINGS\r\n",
    b"MSG\r\n",
    b"ping\r\n",
];

/// One operation.
fn operation(draw: &mut Draw) -> Vec<u8> {
    if draw.one_in(6) {
        return draw.pick(&LINES).to_vec();
    }
    let with_header = !draw.one_in(4);
    let mut content = Vec::new();
    if with_header {
        if !draw.one_in(8) {
            content.extend_from_slice(b"NATS/1.0");
        }
        for _ in 0..draw.below(8) {
            content.extend_from_slice(draw.pick(&BITS));
        }
        if !draw.one_in(4) {
            content.extend_from_slice(b"\r\n\r\n");
        }
    }
    let header = content.len();
    for _ in 0..draw.below(30) {
        content.push(draw.next() as u8);
    }
    let number = |draw: &mut Draw, right: usize| {
        if draw.one_in(40) { draw.pick(&NUMBERS).to_vec() } else { right.to_string().into_bytes() }
    };
    let mut said = if with_header { b"HMSG ".to_vec() } else { b"MSG ".to_vec() };
    said.extend_from_slice(if draw.one_in(3) { draw.pick(&WORDS) } else { b"a.b" });
    said.push(b' ');
    let subscription = draw.below(4);
    said.extend(number(draw, subscription));
    said.push(b' ');
    if draw.one_in(3) {
        said.extend_from_slice(draw.pick(&WORDS));
        said.push(b' ');
    }
    if with_header {
        said.extend(number(draw, header));
        said.push(b' ');
    }
    said.extend(number(draw, content.len()));
    said.extend_from_slice(b"\r\n");
    said.extend(content);
    said.extend_from_slice(b"\r\n");
    if draw.one_in(60) {
        let place = draw.below(said.len());
        said[place] = draw.next() as u8;
    }
    said
}

/// `count` operations, one after the other.
pub fn stream(seed: u64, count: usize) -> Vec<u8> {
    let mut draw = Draw(seed);
    (0..count).flat_map(|_| operation(&mut draw)).collect()
}
