//! Customers' ids as people and spreadsheets give them: CSV, of which the first column counts. What is doubtful is refused with
//! its line before anything is recorded; an id that nobody has would look like a customer of whom nothing is known.

use std::path::Path;

use super::context::usage;
use super::output::{Exit, UserError, Words};
use crate::config::Configuration;
use crate::plan::Subject;

/// The longest id, in bytes: no e-mail address is longer than 320 (RFC 3696 erratum 1690), no key of a sane table either.
const LONGEST: usize = 512;
/// What the first line of a list may be called besides the names of registered columns.
const TITLES: [&str; 6] = ["id", "customer", "customer id", "customer_id", "客户编号", "客户号"];

/// An id and the line it stood in, from 1.
#[derive(Debug, PartialEq, Eq)]
pub struct GivenId {
    /// The line.
    pub line: u64,
    /// The id.
    pub subject: Subject,
}

/// The titles that a list of ids may begin with: the names of the registered columns that hold ids, and common ones.
pub fn titles(config: &Configuration) -> Vec<String> {
    let stores = config.registry.stores.iter();
    let columns = stores.flat_map(|store| &store.collections).filter_map(|collection| collection.subject.clone());
    columns.chain(TITLES.map(str::to_owned)).map(|title| title.to_lowercase()).collect()
}

/// The ids of a file.
///
/// # Errors
/// When it cannot be read, or as [`parse`].
pub fn read_file(path: &Path, titles: &[String]) -> Result<Vec<GivenId>, UserError> {
    let place = path.display().to_string();
    let bytes = std::fs::read(path).map_err(|error| {
        let what = Words::new(format!("the list of ids cannot be read: {error}"), format!("无法读取编号文件：{error}"));
        UserError::new(Exit::Usage, "NO_FILE", what)
            .at(place.clone())
            .advise("check the path and its permissions", "请检查路径和权限")
    })?;
    parse(&bytes, &place, titles)
}

/// The ids in the first column of a CSV text, with or without a title line and a byte-order mark.
///
/// # Errors
/// When it is not UTF-8, a line holds no plain id, or there is none at all.
pub fn parse(bytes: &[u8], place: &str, titles: &[String]) -> Result<Vec<GivenId>, UserError> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()].split(|byte| *byte == b'\n').count();
        usage("NOT_UTF8", "the list of ids is not UTF-8 text", "编号文件不是 UTF-8 文本")
            .at(format!("{place}:{line}"))
            .advise("save it as “CSV UTF-8”", "请另存为“CSV UTF-8”格式")
    })?;
    // A byte-order mark is passed over by the reader.
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
    let mut ids = Vec::new();
    let mut row = csv::StringRecord::new();
    let mut is_first = true;
    while reader.read_record(&mut row).map_err(|error| UserError::from_any(error.into()).at(place))? {
        let line = row.position().map_or(0, |position| line_at(text, position.byte()));
        let cell = row.get(0).unwrap_or_default().trim();
        let is_title = std::mem::take(&mut is_first) && titles.contains(&cell.to_lowercase());
        if is_title || (cell.is_empty() && row.iter().all(|cell| cell.trim().is_empty())) {
            continue;
        }
        check(cell, row.len()).map_err(|fault| fault.at(format!("{place}:{line}")))?;
        ids.push(GivenId { line, subject: Subject::new(cell) });
    }
    if ids.is_empty() {
        return Err(usage("NO_ID", "there is no customer id in the first column", "第一列没有客户编号")
            .at(place)
            .advise("give one id a line", "每行一个编号"));
    }
    Ok(ids)
}

/// The number of the line in which a record begins whose reading began at this byte: line breaks before it count.
fn line_at(text: &str, byte: u64) -> u64 {
    let start = usize::try_from(byte).unwrap_or(usize::MAX).min(text.len());
    let breaks = text.as_bytes()[start..].iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    text.as_bytes()[..start + breaks].split(|byte| *byte == b'\n').count() as u64
}

/// The one id of a text.
///
/// # Errors
/// As [`parse`], and when there are several.
pub fn parse_one(bytes: &[u8], place: &str, titles: &[String]) -> Result<Subject, UserError> {
    let mut ids = parse(bytes, place, titles)?;
    match (ids.pop(), ids.len()) {
        (Some(id), 0) => Ok(id.subject),
        (_, more) => {
            let count = more + 1;
            Err(usage(
                "SEVERAL_IDS",
                &format!("{count} customer ids were given, where one is wanted"),
                &format!("给出了 {count} 个客户编号，这里只需要一个"),
            )
            .at(place)
            .advise("give one id", "请只给一个编号"))
        }
    }
}

/// The id of a line typed at a terminal: all of it.
///
/// # Errors
/// When it is no plain id.
pub fn typed(line: &str) -> Result<Subject, UserError> {
    let id = line.trim();
    if id.is_empty() {
        return Err(usage("NO_ID", "the customer id is empty", "客户编号为空")
            .advise("type the id as the stores have it", "请按数据库中的写法输入编号"));
    }
    check(id, 2)?;
    Ok(Subject::new(id))
}

/// Refuses what is no id, in a line of so many columns.
fn check(id: &str, columns: usize) -> Result<(), UserError> {
    let fault = |en: &str, zh: &str| {
        let advice = ("correct the line; nothing was recorded", "请改正该行；尚未登记任何内容");
        Err(usage("BAD_ID", en, zh).advise(advice.0, advice.1))
    };
    if id.is_empty() {
        return fault("the first column is empty, others are not", "第一列为空，其他列不为空");
    }
    if id.len() > LONGEST {
        return fault("a customer id is longer than 512 bytes", "客户编号超过 512 字节");
    }
    if id.chars().any(char::is_control) {
        return fault("a customer id holds a control character or a line break", "客户编号含有控制字符或换行");
    }
    if columns == 1 && id.contains([';', '\t']) {
        return fault("columns must be separated by commas", "各列须以逗号分隔");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(bytes: &[u8]) -> Vec<(u64, String)> {
        let titles = ["customer_id".to_owned(), "客户编号".to_owned()];
        let found = parse(bytes, "ids.csv", &titles).unwrap();
        found.into_iter().map(|id| (id.line, id.subject.dangerous_text().to_owned())).collect()
    }

    fn refusal(bytes: &[u8]) -> (String, String) {
        let error = parse(bytes, "ids.csv", &[]).unwrap_err();
        (error.code.to_owned(), error.place.unwrap_or_default())
    }

    fn owned(expected: &[(u64, &str)]) -> Vec<(u64, String)> {
        expected.iter().map(|(line, id)| (*line, (*id).to_owned())).collect()
    }

    #[test]
    fn a_spreadsheets_file_is_read_as_it_is_meant() {
        assert_eq!(ids(b"\xef\xbb\xbf12\r\n13\r\n"), owned(&[(1, "12"), (2, "13")]));
        assert_eq!(ids("\u{feff}客户编号,姓名\r\n12,张三\r\n\r\n13,李四".as_bytes()), owned(&[(2, "12"), (4, "13")]));
        assert_eq!(ids(b"Customer_ID\n7\n"), owned(&[(2, "7")]));
        assert_eq!(ids(b"\"a,b\",x\n \"c\" \n d e \n"), owned(&[(1, "a,b"), (2, "\"c\""), (3, "d e")]));
    }

    #[test]
    fn only_the_first_line_can_be_a_title() {
        assert_eq!(ids(b"7\ncustomer_id\n"), owned(&[(1, "7"), (2, "customer_id")]));
    }

    #[test]
    fn what_is_doubtful_is_refused_with_its_line() {
        let refused = |code: &str, place: &str| (code.to_owned(), place.to_owned());
        assert_eq!(refusal(b""), refused("NO_ID", "ids.csv"));
        assert_eq!(refusal(b"\xef\xbb\xbf\r\n"), refused("NO_ID", "ids.csv"));
        assert_eq!(refusal(b"1\n2\n\xc1\xf5\n"), refused("NOT_UTF8", "ids.csv:3"));
        assert_eq!(refusal(b"1\n10;Foo\n"), refused("BAD_ID", "ids.csv:2"));
        assert_eq!(refusal(b"1\n,Foo\n"), refused("BAD_ID", "ids.csv:2"));
        assert_eq!(refusal(b"1\n\"a\nb\"\n"), refused("BAD_ID", "ids.csv:2"));
        assert_eq!(refusal(b"1\x1b[2J\n"), refused("BAD_ID", "ids.csv:1"));
        assert_eq!(refusal("x".repeat(513).as_bytes()), refused("BAD_ID", "ids.csv:1"));
    }

    #[test]
    fn where_one_is_wanted_several_are_refused() {
        assert_eq!(parse_one(b"7\n", "standard input", &[]).unwrap(), Subject::new("7"));
        assert_eq!(parse_one(b"7\n8\n", "standard input", &[]).unwrap_err().code, "SEVERAL_IDS");
    }

    #[test]
    fn no_error_repeats_an_id() {
        for bytes in [&b"secret;x\n"[..], b"secret\x07\n", b"secret\n\xff\n", b"secret\nsecret2\n"] {
            let error = parse_one(bytes, "standard input", &[]).unwrap_err();
            assert!(!format!("{error:?}").contains("secret"));
        }
    }
}
