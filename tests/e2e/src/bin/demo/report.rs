//! What the demo prints, and whether all of it was as the configuration says.

use std::fmt::Debug;
use std::io::{IsTerminal, stdout};
use std::process::ExitCode;

/// Prints steps and findings, and remembers what was wrong.
pub struct Report {
    colours: bool,
    steps: u32,
    wrong: Vec<String>,
}

#[derive(Clone, Copy)]
enum Colour {
    Bold,
    Green,
    Red,
}

impl Report {
    /// Colours are for eyes: a file or a pipe gets plain text.
    pub fn new() -> Self {
        Self { colours: stdout().is_terminal(), steps: 0, wrong: Vec::new() }
    }

    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        let title = format!("{}. {title}", self.steps);
        println!("\n{}", self.paint(Colour::Bold, &title));
    }

    pub fn say(&self, text: &str) {
        for line in text.lines() {
            println!("   {line}");
        }
    }

    /// Says that something is as it should be.
    pub fn ok(&self, what: &str) {
        println!("   {} {what}", self.paint(Colour::Green, "ok"));
    }

    /// Compares what was found with what the configuration says, and says so.
    pub fn check<T: PartialEq + Debug>(&mut self, what: &str, found: &T, wanted: &T) {
        if self.holds(what, found, wanted) {
            self.ok(what);
        }
    }

    /// Compares, and says something only when it is wrong.
    pub fn holds<T: PartialEq + Debug>(&mut self, what: &str, found: &T, wanted: &T) -> bool {
        if found == wanted {
            return true;
        }
        let text = format!("{what}: wanted {wanted:?}, found {found:?}");
        println!("   {} {text}", self.paint(Colour::Red, "WRONG"));
        self.wrong.push(text);
        false
    }

    /// Prints rows under a header, every column as wide as its widest cell.
    pub fn table<const N: usize>(&self, header: [&str; N], rows: &[[String; N]]) {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.chain([header[column].chars().count()]).max().unwrap_or(0)
        };
        let columns = self.columns(std::array::from_fn(|column| (header[column], width(column))));
        for row in rows {
            columns.row(row);
        }
    }

    /// Prints the header of a table whose rows come later, one by one. A column is as wide as its name at least.
    pub fn columns<const N: usize>(&self, columns: [(&str, usize); N]) -> Columns<N> {
        let columns_of = Columns(columns.map(|(name, width)| width.max(name.chars().count())));
        println!("{}", self.paint(Colour::Bold, &columns_of.line(columns.map(|(name, _)| name))));
        columns_of
    }

    /// Says how it went.
    pub fn finish(self) -> ExitCode {
        if self.wrong.is_empty() {
            println!("\n{}", self.paint(Colour::Green, "All of it was as the configuration says."));
            return ExitCode::SUCCESS;
        }
        println!("\n{}", self.paint(Colour::Red, "Not as the configuration says:"));
        for text in &self.wrong {
            println!("   {text}");
        }
        ExitCode::FAILURE
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Bold => 1,
            Colour::Green => 32,
            Colour::Red => 31,
        };
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// The widths of a table's columns.
pub struct Columns<const N: usize>([usize; N]);

impl<const N: usize> Columns<N> {
    pub fn row(&self, cells: &[String; N]) {
        println!("{}", self.line(cells.each_ref().map(String::as_str)));
    }

    fn line(&self, cells: [&str; N]) -> String {
        let cells = cells.iter().zip(self.0).map(|(cell, width)| format!("{cell:width$}"));
        format!("   {}", cells.collect::<Vec<_>>().join("  ")).trim_end().to_owned()
    }
}
