//! Python's string rules where Rust's differ: the harness's prompts and lengths depend on them.

/// `str.isspace` for one character, and `\s` of Python's `re`: Rust's white space and the four separators
/// U+001C..U+001F.
pub fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\u{1c}'..='\u{1f}')
}

/// `str.strip()`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// `str.lstrip()`.
pub fn lstrip(text: &str) -> &str {
    text.trim_start_matches(is_space)
}

/// Splits where `str.rstrip()` would cut: the text and its trailing white space.
pub fn split_trailing_space(text: &str) -> (&str, &str) {
    text.split_at(text.trim_end_matches(is_space).len())
}

/// `len(str)`: Unicode code points.
pub fn len(text: &str) -> usize {
    text.chars().count()
}

/// `len(re.split(r"\s+", text))`: runs of white space, plus one; an edge run adds an empty piece.
pub fn count_split_on_space(text: &str) -> usize {
    let mut inside = false;
    let mut runs = 0;
    for c in text.chars() {
        runs += usize::from(is_space(c) && !inside);
        inside = is_space(c);
    }
    runs + 1
}

/// `str.capitalize()`: the first character in title case, all others in lower case.
pub fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else { return String::new() };
    // The whole text is lowered so that a final sigma sees what stands before it.
    let lowered = text.to_lowercase();
    title(first).chars().chain(lowered.chars().skip(first.to_lowercase().count())).collect()
}

/// Title case of one character. It is the upper case, whose further letters are lowered, but for the
/// characters listed here.
fn title(c: char) -> String {
    match c {
        '\u{149}' => "\u{2bc}N".into(),
        '\u{1c4}'..='\u{1c6}' => "\u{1c5}".into(),
        '\u{1c7}'..='\u{1c9}' => "\u{1c8}".into(),
        '\u{1ca}'..='\u{1cc}' => "\u{1cb}".into(),
        '\u{1f1}'..='\u{1f3}' => "\u{1f2}".into(),
        // Georgian has capitals but no title case.
        '\u{10d0}'..='\u{10fa}' | '\u{10fd}'..='\u{10ff}' => c.into(),
        // Greek with iota subscript: precomposed where there is such a capital, a combining iota elsewhere.
        '\u{1f80}'..='\u{1faf}' => char::from_u32(c as u32 | 8).unwrap_or(c).into(),
        '\u{1fb3}' | '\u{1fbc}' => "\u{1fbc}".into(),
        '\u{1fc3}' | '\u{1fcc}' => "\u{1fcc}".into(),
        '\u{1ff3}' | '\u{1ffc}' => "\u{1ffc}".into(),
        '\u{1fb2}' | '\u{1fb4}' | '\u{1fb7}' | '\u{1fc2}' | '\u{1fc4}' | '\u{1fc7}' | '\u{1ff2}'
        | '\u{1ff4}' | '\u{1ff7}' => {
            c.to_uppercase().map(|u| if u == '\u{399}' { '\u{345}' } else { u }).collect()
        }
        _ => {
            let mut upper = c.to_uppercase();
            let first = upper.next();
            first.into_iter().chain(upper.flat_map(char::to_lowercase)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripping_knows_the_separators_that_rust_does_not() {
        assert_eq!(strip("\u{1c}\u{1f} a b\u{a0}\u{85}\u{2003}\n"), "a b");
        assert_eq!(lstrip(" \u{1e}B "), "B ");
        assert_eq!(split_trailing_space("a \u{1d}\u{3000}"), ("a", " \u{1d}\u{3000}"));
        assert_eq!(split_trailing_space("a\u{200b}"), ("a\u{200b}", ""), "a zero width space is no space");
        assert_eq!(split_trailing_space(" \n"), ("", " \n"));
    }

    #[test]
    fn splitting_counts_empty_edge_pieces() {
        assert_eq!(count_split_on_space(""), 1);
        assert_eq!(count_split_on_space("one"), 1);
        assert_eq!(count_split_on_space(" = A  b = \n"), 6);
        assert_eq!(count_split_on_space("a\u{1c}b"), 2);
    }

    #[test]
    fn capitalize_lowers_all_but_the_first_character() {
        assert_eq!(capitalize(""), "");
        assert_eq!(capitalize("hELLO World"), "Hello world");
        assert_eq!(capitalize(" Is HERE"), " is here");
        assert_eq!(capitalize("ÉTÉ"), "Été");
    }

    #[test]
    fn capitalize_uses_title_case_where_it_differs_from_upper_case() {
        let pairs = [
            ("ǆABC", "ǅabc"),
            ("ßA", "Ssa"),
            ("ﬁN", "Fin"),
            ("ŉA", "ʼNa"),
            ("აბ", "აბ"),
            ("ᾳΑ", "ᾼα"),
            ("ᾲ", "Ὰ\u{345}"),
            ("ᾀ", "ᾈ"),
        ];
        for (text, title) in pairs {
            assert_eq!(capitalize(text), title, "{text}");
        }
        assert_eq!(capitalize("ΟΔΟΣ"), "Οδος", "a final sigma");
        assert_eq!(capitalize("İA"), "İa", "the first character may be longer in lower case");
    }

    #[test]
    fn lengths_are_code_points() {
        assert_eq!(len("naïve"), 5);
        assert_eq!(len("日本🎉"), 3);
    }
}
