//! A grid of text cells and its three renderings: terminal, Markdown and LaTeX.

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Columns that a terminal table may take.
pub const WIDTH: usize = 100;
/// Columns that a LaTeX table may have.
const LATEX_COLUMNS: usize = 9;

/// What a column tells, for splitting a grid that is too wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The rows' name: first, left-aligned, repeated in every part.
    Name,
    /// Kept together in the first part.
    Summary,
    /// Moved to a table of their own when the whole is too wide.
    Detail,
    /// A bar of characters: left-aligned.
    Bar,
}

/// A column's head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Its text; a terminal breaks it at the first space.
    pub name: String,
    /// What it tells.
    pub role: Role,
}

/// Cells of text under heads; the first column is the rows' name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grid {
    /// The heads.
    pub columns: Vec<Column>,
    /// The cells, one for each column.
    pub rows: Vec<Vec<String>>,
}

impl Grid {
    /// The grid as tables no wider than [`WIDTH`] where a single column allows it, one below the other.
    pub fn terminal(&self) -> String {
        let pages = self.pages(&|g| g.width() <= WIDTH);
        pages.iter().map(|page| page.table() + "\n").collect::<Vec<_>>().join("\n")
    }

    /// A GitHub table, padded so that it reads well as text too.
    pub fn markdown(&self) -> String {
        let cells = |row: Vec<&str>| row.into_iter().map(|c| c.replace('|', "\\|")).collect::<Vec<_>>();
        let head = cells(self.columns.iter().map(|c| c.name.as_str()).collect());
        let rows: Vec<_> = self.rows.iter().map(|r| cells(r.iter().map(String::as_str).collect())).collect();
        let width = |i: usize| {
            rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0).max(head[i].chars().count()).max(3)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let left: Vec<bool> = self.columns.iter().map(|c| matches!(c.role, Role::Name | Role::Bar)).collect();
        let dashes = |(&width, &left): (&usize, &bool)| {
            if left { format!(":{}", "-".repeat(width - 1)) } else { format!("{}:", "-".repeat(width - 1)) }
        };
        let rule: Vec<String> = widths.iter().zip(&left).map(dashes).collect();
        [&head, &rule].into_iter().chain(&rows).map(|r| markdown_row(r, &widths, &left)).collect()
    }

    /// Booktabs tables with a caption, of this many columns as a page takes.
    pub fn latex(&self, caption: &str) -> String {
        let pages = self.pages(&|g| g.columns.len() <= LATEX_COLUMNS);
        pages.iter().map(|page| page.latex_table(caption)).collect::<Vec<_>>().join("\n")
    }

    fn latex_table(&self, caption: &str) -> String {
        let line = |cells: Vec<&str>| {
            format!("    {} \\\\\n", cells.into_iter().map(latex_escape).collect::<Vec<_>>().join(" & "))
        };
        let head = line(self.columns.iter().map(|c| c.name.as_str()).collect());
        let rows: String = self.rows.iter().map(|r| line(r.iter().map(String::as_str).collect())).collect();
        let alignment = format!("l{}", "r".repeat(self.columns.len().saturating_sub(1)));
        let open = format!("\\begin{{table}}\n  \\centering\n  \\caption{{{}}}\n", latex_escape(caption));
        let body = format!("    \\toprule\n{head}    \\midrule\n{rows}    \\bottomrule\n");
        format!("{open}  \\begin{{tabular}}{{{alignment}}}\n{body}  \\end{{tabular}}\n\\end{{table}}\n")
    }

    /// The grid in pieces that fit: whole, else summary and details apart, and those that still do not fit
    /// turned on their side.
    fn pages(&self, fits: &dyn Fn(&Grid) -> bool) -> Vec<Grid> {
        if fits(self) {
            return vec![self.clone()];
        }
        let apart = [Role::Summary, Role::Detail]
            .into_iter()
            .map(|role| (role, self.only(role)))
            .filter(|(_, g)| g.columns.len() > 1);
        apart.flat_map(|(role, g)| if fits(&g) { vec![g] } else { g.transposed(role).packed(fits) }).collect()
    }

    /// The names and the columns of a role.
    fn only(&self, role: Role) -> Grid {
        self.pick(
            &(0..self.columns.len()).filter(|&i| i == 0 || self.columns[i].role == role).collect::<Vec<_>>(),
        )
    }

    fn pick(&self, columns: &[usize]) -> Grid {
        let rows = self.rows.iter().map(|r| columns.iter().map(|&i| r[i].clone()).collect()).collect();
        Grid { columns: columns.iter().map(|&i| self.columns[i].clone()).collect(), rows }
    }

    /// One row per column of `role`, one column per row.
    fn transposed(&self, role: Role) -> Grid {
        let corner = if role == Role::Detail { "task" } else { "measure" };
        let name = Column { name: corner.into(), role: Role::Name };
        let heads = self.rows.iter().map(|r| Column { name: r[0].clone(), role });
        let row = |i: usize| {
            std::iter::once(self.columns[i].name.clone())
                .chain(self.rows.iter().map(|r| r[i].clone()))
                .collect()
        };
        Grid {
            columns: std::iter::once(name).chain(heads).collect(),
            rows: (1..self.columns.len()).map(row).collect(),
        }
    }

    /// Columns in order in as few grids as they need, each with the names in front; a single column that is
    /// too wide stays so.
    fn packed(&self, fits: &dyn Fn(&Grid) -> bool) -> Vec<Grid> {
        let mut parts: Vec<Vec<usize>> = Vec::new();
        for i in 1..self.columns.len() {
            match parts.last_mut() {
                Some(part) if fits(&self.pick(&[part.as_slice(), &[i]].concat())) => part.push(i),
                _ => parts.push(vec![0, i]),
            }
        }
        parts.iter().map(|part| self.pick(part)).collect()
    }

    /// Characters that the terminal table takes: each column its content, two spaces and a border.
    fn width(&self) -> usize {
        1 + (0..self.columns.len()).map(|i| self.column_width(i) + 3).sum::<usize>()
    }

    fn column_width(&self, i: usize) -> usize {
        let head = broken(&self.columns[i].name);
        let heads = head.lines().map(|l| l.chars().count());
        heads.chain(self.rows.iter().map(|r| r[i].chars().count())).max().unwrap_or(0)
    }

    fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.columns.iter().map(|c| broken(&c.name)));
        for row in &self.rows {
            table.add_row(row);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table.to_string()
    }
}

/// A head in two lines.
fn broken(name: &str) -> String {
    name.replacen(' ', "\n", 1)
}

fn markdown_row(cells: &[String], widths: &[usize], left: &[bool]) -> String {
    let pad = |i: usize| {
        let cell = &cells[i];
        let width = widths[i];
        if left[i] { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
    };
    format!("| {} |\n", (0..cells.len()).map(pad).collect::<Vec<_>>().join(" | "))
}

/// Text safe in LaTeX.
pub fn latex_escape(text: &str) -> String {
    let escape = |c: char| match c {
        '&' | '%' | '$' | '#' | '_' | '{' | '}' => format!("\\{c}"),
        '~' => "\\textasciitilde{}".into(),
        '^' => "\\textasciicircum{}".into(),
        '\\' => "\\textbackslash{}".into(),
        '<' => "\\textless{}".into(),
        '>' => "\\textgreater{}".into(),
        '±' => "$\\pm$".into(),
        '×' => "$\\times$".into(),
        'Δ' => "$\\Delta$".into(),
        other => other.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(details: usize) -> Grid {
        let column = |name: String, role| Column { name, role };
        let mut columns = vec![column("model".into(), Role::Name), column("kl".into(), Role::Summary)];
        columns.extend((0..details).map(|i| column(format!("some_task_{i}"), Role::Detail)));
        let row = |name: &str| {
            std::iter::once(name.to_string()).chain((0..=details).map(|i| i.to_string())).collect()
        };
        Grid { rows: vec![row("dense"), row("a|b_%")], columns }
    }

    #[test]
    fn a_grid_that_is_too_wide_is_split_and_loses_no_cell() {
        for details in [0, 1, 5, 6, 20, 57] {
            let text = grid(details).terminal();
            assert!(text.lines().all(|l| l.chars().count() <= WIDTH), "{text}");
            assert!((0..details).all(|i| text.contains(&format!(" some_task_{i} "))));
            let pages = grid(details).pages(&|g| g.width() <= WIDTH);
            let cells = |g: &Grid| g.rows.len() * (g.columns.len() - 1);
            assert_eq!(pages.iter().map(cells).sum::<usize>(), cells(&grid(details)));
        }
    }

    #[test]
    fn more_models_than_fit_side_by_side_are_split_too() {
        let rows = (0..40).map(|i| vec![format!("iteration-{i}"), "0.1000 ± 0.0100".into()]).collect();
        let mut columns = grid(0).columns;
        columns[1].name = "x".repeat(90);
        let pages = Grid { columns, rows }.pages(&|g| g.width() <= WIDTH);
        assert_eq!(pages.iter().map(|g| g.columns.len() - 1).sum::<usize>(), 40);
        assert!(pages.iter().all(|g| g.columns[0].name == "measure" && g.rows.len() == 1));
    }

    #[test]
    fn the_width_that_splitting_counts_with_is_the_one_drawn() {
        let drawn = grid(2).table().lines().map(|l| l.chars().count()).max();
        assert_eq!(drawn, Some(grid(2).width()));
    }

    #[test]
    fn markdown_and_latex_escape_what_they_must() {
        assert_eq!(
            grid(0).markdown(),
            "| model  |  kl |\n| :----- | --: |\n| dense  |   0 |\n| a\\|b_% |   0 |\n"
        );
        assert!(grid(0).latex("50% of x_y").contains("\\caption{50\\% of x\\_y}"));
        assert!(grid(0).latex("").contains("    a|b\\_\\% & 0 \\\\\n    \\bottomrule\n"));
    }

    #[test]
    fn no_rows_leave_the_heads() {
        let empty = Grid { rows: vec![], ..grid(1) };
        assert!(empty.terminal().contains("some_task_0"));
        assert_eq!(empty.markdown().lines().count(), 2);
    }
}
