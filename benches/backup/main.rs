//! Backups of one PostgreSQL table by the built program, beside the tools that people use for it today, in one run:
//! `tests/run --bench backup`. About 1 GB: 100,000 customers with 30 rows each over three years; `-- quick` takes a tenth, `-- tiny` a
//! hundredth.
//!
//! Every tool is run as a user runs it, by a shell. Its figures are those of the whole pipeline on the client's side: processor time of
//! all its processes, the largest resident set of any one of them, and what it added to the folder that stands for the bucket. The
//! server's own processor time stands beside them. The bucket of wangchuan is its embedded S3 server, whose work counts as the client's.

mod measure;
mod peers;
mod plot;
mod table;

use std::path::Path;

use measure::{Cost, measured, shell};
use peers::Tool;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// The processor time, the memory and the bytes of each tool in each step.
type Figures = Vec<(&'static str, String, Cost)>;

fn number(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

#[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
fn print(step: &str, rows: &[(String, Cost)]) {
    println!("\n| {step} | client processor s | server processor s | wall s | peak MiB | MB stored | objects | |");
    println!("|---|--:|--:|--:|--:|--:|--:|---|");
    for (name, cost) in rows {
        let Cost { client, server, wall, peak_kib, bytes, objects, note, .. } = cost;
        let (peak, bytes) = (peak_kib / 1024, number(*bytes));
        println!("| {name} | {client:.2} | {server:.2} | {wall:.1} | {peak} | {bytes} | {objects} | {note} |");
    }
}

/// Runs one step with every tool, and prints its table.
fn step(name: &'static str, tools: &[Tool], figures: &mut Figures, command: impl Fn(&Tool) -> String) -> Result<()> {
    let mut rows = Vec::new();
    for tool in tools {
        let command = command(tool);
        if command.is_empty() {
            continue;
        }
        tool.bring_up_to_date(name)?;
        let mut cost = measured(&command, Some(&tool.bucket))?;
        cost.note = tool.remark(&cost.output);
        figures.push((name, tool.name.clone(), cost.clone()));
        rows.push((tool.name.clone(), cost));
    }
    print(name, &rows);
    Ok(())
}

/// Puts what each tool has into an empty database, and compares it with the table.
fn restores(tools: &[Tool], figures: &mut Figures) -> Result<()> {
    let expected = table::digest("bench_backup")?;
    let mut rows = Vec::new();
    for tool in tools.iter().filter(|tool| !tool.restore.is_empty()) {
        table::make_database("bench_restored")?;
        let mut cost = measured(&tool.restore, None)?;
        let found = tool.restored_digest()?;
        cost.note = if found == expected { "same rows".to_owned() } else { format!("OTHER ROWS: {found}") };
        figures.push(("restore", tool.name.clone(), cost.clone()));
        rows.push((tool.name.clone(), cost));
    }
    print("restore into an empty database", &rows);
    if rows.iter().any(|(_, cost)| cost.note.starts_with("OTHER")) {
        return Err(format!("what was restored is not what was backed up, which is {expected}").into());
    }
    Ok(())
}

/// One customer, in a file, and what is read of the backup for them.
fn one_customer(tools: &[Tool], folder: &Path) -> Result<()> {
    let id = folder.join("customer");
    std::fs::write(&id, format!("{}\n", table::customer(17)))?;
    let mut rows = Vec::new();
    for tool in tools.iter().filter(|tool| tool.is_ours()) {
        table::make_database("bench_restored")?;
        let command = tool.wangchuan(&format!("restore --subject - --to {} --json", table::url("bench_restored")?));
        let mut cost = measured(&format!("{command} < {}", id.display()), None)?;
        let (read, stored) = (field(&cost.output, "bytes_read"), field(&cost.output, "bytes_stored"));
        let found = table::count("bench_restored", "orders")?;
        cost.note = format!("{found} rows; read {:.3} MB, {:.2} %", read / 1e6, 100.0 * read / stored);
        rows.push((tool.name.clone(), cost));
    }
    print("restore one customer", &rows);
    Ok(())
}

/// The first number behind a name in JSON.
fn field(json: &str, name: &str) -> f64 {
    let rest = json.split_once(&format!("\"{name}\":")).map_or("", |(_, rest)| rest.trim_start());
    rest.split(|letter: char| !letter.is_ascii_digit()).next().unwrap_or_default().parse().unwrap_or(0.0)
}

/// Erases one customer behind the snapshots there are: row deletion, certificate and the destruction of the key.
fn erase_one(tool: &Tool, folder: &Path, (number, snapshots): (u32, usize), figures: &mut Figures) -> Result<()> {
    let id = folder.join("erased");
    std::fs::write(&id, format!("{}\n", table::customer(number)))?;
    let before = measure::listing(&tool.bucket)?;
    let mut rows = Vec::new();
    for (what, command) in [
        ("the request taken down", format!("{} < {}", tool.wangchuan("request new - --yes"), id.display())),
        ("its rows deleted, read back, certified", tool.wangchuan("request run --json")),
        ("the customer's key destroyed, certified", tool.wangchuan("key shred --now --json")),
    ] {
        let mut cost = measured(&command, Some(&tool.bucket))?;
        cost.note = tool.remark(&cost.output);
        figures.push(("erase one customer", what.to_owned(), cost.clone()));
        rows.push((what.to_owned(), cost));
    }
    print(&format!("erase one customer behind {snapshots} snapshots, {}", tool.name), &rows);
    let after = measure::listing(&tool.bucket)?;
    let rewritten: u64 =
        before.iter().filter(|(name, _)| !after.contains_key(*name)).map(|(_, (bytes, _))| bytes).sum();
    let changed: u64 =
        before.iter().filter_map(|(name, was)| after.get(name).filter(|is| *is != was)).map(|(bytes, _)| bytes).sum();
    say(&format!("bytes of backup rewritten or removed: {}", rewritten + changed));
    // Of nobody who is shredded anything is restored.
    table::make_database("bench_restored")?;
    let command = tool.wangchuan(&format!("restore --subject - --to {} --json", table::url("bench_restored")?));
    let _ = shell(&format!("{command} < {} || true", id.display()))?;
    let left = table::count("bench_restored", "orders").unwrap_or(0);
    say(&format!("rows of the customer that a restore brings back: {left}"));
    if left > 0 || rewritten + changed > 0 {
        return Err("the erasure left rows, or touched the backup".into());
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "a benchmark's result is what it prints")]
fn say(text: &str) {
    println!("\n{text}");
}

/// A hundred snapshots of a smaller table, and then one customer less.
fn erase_behind_many(folder: &Path, snapshots: usize, customers: u32, figures: &mut Figures) -> Result<()> {
    table::make_database("bench_many")?;
    table::fill("bench_many", customers, customers * table::ROWS_EACH)?;
    let tool = peers::wangchuan(folder, "many", "year", "bench_many")?;
    shell(&tool.full)?;
    for _ in 1..snapshots {
        table::run("bench_many", "UPDATE orders SET note = note || '.' WHERE id % 100 = (random() * 99)::int")?;
        shell(&tool.increment)?;
    }
    erase_one(&tool, folder, (17, snapshots), figures)
}

fn main() -> Result<()> {
    let has = |word: &str| std::env::args().any(|argument| argument == word);
    let part = if has("tiny") {
        100
    } else if has("quick") {
        10
    } else {
        1
    };
    let is_ours_only = has("ours");
    let customers = table::CUSTOMERS / part;
    let rows = customers * table::ROWS_EACH;
    let temporary = tempfile::tempdir()?;
    let folder = temporary.path();
    // The cluster of pgBackRest belongs to another user.
    std::fs::set_permissions(folder, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    table::make_database("bench_backup")?;
    table::fill("bench_backup", customers, rows)?;
    say(&format!("{rows} rows of {customers} customers, {} MB in the table", table::megabytes("bench_backup")?));
    let mut tools = Vec::new();
    for width in ["year", "quarter", "month"] {
        tools.push(peers::wangchuan(folder, width, width, "bench_backup")?);
    }
    if !is_ours_only {
        tools.extend(peers::others(folder)?);
    }
    let mut figures = Figures::new();
    step("full", &tools, &mut figures, |tool| tool.full.clone())?;
    step("nothing changed", &tools, &mut figures, |tool| tool.increment.clone())?;
    table::append("bench_backup", customers, rows, rows / 100)?;
    step("1 % appended", &tools, &mut figures, |tool| tool.increment.clone())?;
    table::run("bench_backup", table::SCATTERED)?;
    step("1 % changed, scattered", &tools, &mut figures, |tool| tool.increment.clone())?;
    table::run("bench_backup", &table::oldest_deleted(rows))?;
    step("5 % deleted", &tools, &mut figures, |tool| tool.increment.clone())?;
    restores(&tools, &mut figures)?;
    one_customer(&tools, folder)?;
    erase_one(&tools[0], folder, (29, 5), &mut figures)?;
    let (snapshots, of) = if part == 1 { (100, 1_000) } else { (10, 100) };
    erase_behind_many(folder, snapshots, of, &mut figures)?;
    plot::write(&figures, customers)?;
    for tool in &tools {
        tool.stop();
    }
    Ok(())
}
