//! Plain columns for verbs that list things, and long sentences broken into lines.

/// How a column lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A first cell longer than this stands on a line of its own.
const LONGEST: usize = 44;

/// Rows under their heads, two spaces between columns, nothing behind the last one. A first cell that is too
/// long for a column gets a line of its own, and the rest of its row the next one.
pub fn columns<const N: usize>(heads: [(&str, Side); N], rows: &[[String; N]]) -> String {
    let head = heads.map(|(name, _)| name.to_string());
    let all: Vec<&[String; N]> = std::iter::once(&head).chain(rows).collect();
    let widths: [usize; N] = std::array::from_fn(|i| {
        all.iter().map(|r| r[i].chars().count()).filter(|&w| i > 0 || w <= LONGEST).max().unwrap_or(0)
    });
    all.into_iter().map(|row| lines(row, &widths, &heads)).collect()
}

fn lines<const N: usize>(row: &[String; N], widths: &[usize; N], heads: &[(&str, Side); N]) -> String {
    if row[0].chars().count() <= widths[0] {
        return line(row, widths, heads);
    }
    let mut rest = row.clone();
    let first = std::mem::take(&mut rest[0]);
    format!("{first}\n{}", line(&rest, widths, heads))
}

fn line<const N: usize>(row: &[String; N], widths: &[usize; N], heads: &[(&str, Side); N]) -> String {
    let cell = |i: usize| {
        let text = &row[i];
        let width = widths[i];
        match heads[i].1 {
            Side::Left => format!("{text:<width$}"),
            Side::Right => format!("{text:>width$}"),
        }
    };
    (0..N).map(cell).collect::<Vec<_>>().join("  ").trim_end().to_string() + "\n"
}

/// A text with every line broken at spaces so that none is wider than `width` where its words allow it, all
/// of them after `indent`.
pub fn wrapped(text: &str, width: usize, indent: &str) -> String {
    let room = width.saturating_sub(indent.chars().count());
    let lines = text.lines().flat_map(|line| broken(line, room));
    lines.map(|line| format!("{indent}{line}").trim_end().to_string() + "\n").collect()
}

/// One line as several; spaces at its start stay.
fn broken(line: &str, room: usize) -> Vec<String> {
    let start: String = line.chars().take_while(|c| *c == ' ').collect();
    let mut out = vec![start.clone()];
    for word in line.split_whitespace() {
        let last = out.len() - 1;
        let empty = out[last] == start;
        if !empty && out[last].chars().count() + 1 + word.chars().count() > room {
            out.push(format!("{start}{word}"));
        } else {
            out[last].push_str(if empty { "" } else { " " });
            out[last].push_str(word);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [
            ["a".to_string(), "10".to_string(), "x".to_string()],
            ["long name".to_string(), "9".to_string(), String::new()],
        ];
        let expected = "name       size  state\na            10  x\nlong name     9\n";
        assert_eq!(
            columns([("name", Side::Left), ("size", Side::Right), ("state", Side::Left)], &rows),
            expected
        );
        assert_eq!(columns([("name", Side::Left), ("n", Side::Right)], &[]), "name  n\n");
    }

    #[test]
    fn a_first_cell_that_is_too_long_has_its_own_line() {
        let long = "x".repeat(60);
        let short = "y".to_string();
        let text = columns(
            [("name", Side::Left), ("n", Side::Right)],
            &[[long.clone(), "1".into()], [short, "2".into()]],
        );
        assert_eq!(text, format!("name  n\n{long}\n      1\ny     2\n"));
    }

    #[test]
    fn long_lines_are_broken_at_spaces_and_long_words_are_not() {
        assert_eq!(wrapped("one two three\n  at: here", 9, "  "), "  one two\n  three\n    at:\n    here\n");
        assert_eq!(wrapped("abcdefghij k", 5, ""), "abcdefghij\nk\n");
        assert_eq!(wrapped("", 5, "  "), "");
    }
}
