//! Names: the surname and 某 for Chinese ones, initials for others.

/// Chinese surnames of two characters that are in use, in simplified and, where different, traditional script.
const COMPOUND_SURNAMES: [&str; 63] = [
    "欧阳", "歐陽", "司马", "司馬", "上官", "诸葛", "諸葛", "东方", "東方", "皇甫", "尉迟", "尉遲", "公孙", "公孫",
    "慕容", "令狐", "司徒", "司空", "夏侯", "轩辕", "軒轅", "端木", "百里", "南宫", "南宮", "独孤", "獨孤", "长孙",
    "長孫", "宇文", "呼延", "闻人", "聞人", "东郭", "東郭", "南门", "南門", "西门", "西門", "赫连", "赫連", "澹台",
    "公冶", "宗政", "濮阳", "濮陽", "淳于", "单于", "單于", "太叔", "申屠", "仲孙", "仲孫", "钟离", "鍾離", "鲜于",
    "鮮于", "闾丘", "万俟", "萬俟", "拓跋", "梁丘", "左丘",
];

/// `张三丰` → `张某`, `欧阳锋` → `欧阳某`, `John Smith` → `J*** S***`; `None` for what does not look like a name.
pub(super) fn mask(name: &str) -> Option<String> {
    let letters: Vec<char> = name.chars().collect();
    if letters.iter().all(|letter| is_han(*letter) || matches!(letter, '·' | '•' | '・')) {
        return han(name, &letters);
    }
    latin(name)
}

fn han(name: &str, letters: &[char]) -> Option<String> {
    // A transcribed name (买买提·艾力) has no surname; its first character stands for it.
    let transcribed = letters.iter().any(|letter| !is_han(*letter));
    let first = letters.first().filter(|letter| is_han(**letter))?;
    match letters.len() {
        1 => return Some("某".to_owned()),
        2..=6 => {}
        _ if transcribed && letters.len() <= 30 => {}
        _ => return None,
    }
    // With two characters a compound surname would be the whole name.
    let compound = COMPOUND_SURNAMES.iter().find(|surname| letters.len() > 2 && name.starts_with(**surname));
    Some(compound.map_or_else(|| format!("{first}某"), |surname| format!("{surname}某")))
}

fn latin(name: &str) -> Option<String> {
    let is_part = |letter: char| letter.is_alphabetic() && !is_han(letter) || matches!(letter, '\'' | '’' | '-' | '.');
    let words: Vec<&str> = name.split_whitespace().collect();
    if words.len() > 8 || !words.iter().all(|word| word.chars().all(is_part)) {
        return None;
    }
    let shown = words.iter().map(|word| {
        let first = word.chars().next().filter(|letter| letter.is_alphabetic())?;
        // A single letter is all there is of that part.
        let single = word.chars().filter(|letter| letter.is_alphabetic()).count() == 1;
        Some(if single { "***".to_owned() } else { format!("{first}***") })
    });
    shown.collect::<Option<Vec<String>>>().map(|words| words.join(" "))
}

/// Whether a character is a Chinese one: the unified ideographs, extension A, the compatibility block and the supplementary
/// planes (Unicode 15), and the ideographic zero.
pub(super) fn is_han(letter: char) -> bool {
    matches!(letter, '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}' | '〇')
}
