//! What people write for other people to read: ids of holds and reasons. It is stored and shown in clear, so it must be plain and
//! must not name a person.

use thiserror::Error;

/// The longest text, in characters: it stands in a column of a table.
const LONGEST: usize = 200;
/// So many digits in a row are a mobile number (11), an identity card (15, 18) or a bank card (16 to 19) sooner than a case.
const TELLING_DIGITS: usize = 11;

/// Why a text cannot be stored in clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FreeTextFault {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Too long for a table.
    #[error("is longer than 200 characters")]
    TooLong,
    /// It would break tables and terminals.
    #[error("holds a control character or a line break")]
    ControlCharacter,
    /// It looks like a mobile number, identity card, bank card or e-mail address.
    #[error(
        "looks like personal data (a number of 11 or more digits, or an e-mail address), and it is stored in clear"
    )]
    Personal,
}

/// Checks a text that will be stored and shown in clear. A name cannot be told from other words: that remains with who writes.
///
/// # Errors
/// What is wrong with it.
pub fn check_free_text(text: &str) -> Result<(), FreeTextFault> {
    if text.trim().is_empty() {
        return Err(FreeTextFault::Empty);
    }
    if text.chars().count() > LONGEST {
        return Err(FreeTextFault::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(FreeTextFault::ControlCharacter);
    }
    if has_digits_in_a_row(text) || text.split_whitespace().any(is_mail) {
        return Err(FreeTextFault::Personal);
    }
    Ok(())
}

/// Digits with at most one blank or hyphen between them: people write numbers in groups. A case number has other signs.
fn has_digits_in_a_row(text: &str) -> bool {
    let (mut digits, mut gap) = (0, 0);
    for letter in text.chars() {
        match letter {
            '0'..='9' | '０'..='９' => {
                digits += 1;
                gap = 0;
            }
            ' ' | '-' if gap == 0 && digits > 0 => gap = 1,
            _ => (digits, gap) = (0, 0),
        }
        if digits >= TELLING_DIGITS {
            return true;
        }
    }
    false
}

fn is_mail(word: &str) -> bool {
    word.split_once(['@', '＠']).is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_words_and_case_numbers_pass() {
        for text in ["lawsuit", "(2026)京0105民初12345号", "case-2026-001", "tax audit 2024-2026, folder 17", "诉讼"]
        {
            assert_eq!(check_free_text(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn what_names_a_person_or_breaks_a_table_does_not() {
        let personal = [
            "张三 13800138000",
            "138-0013-8000",
            "6222 0213 0001 2345 678",
            "ask li@example.com",
            "１３８００１３８０００",
        ];
        for text in personal {
            assert_eq!(check_free_text(text), Err(FreeTextFault::Personal), "{text}");
        }
        assert_eq!(check_free_text(" "), Err(FreeTextFault::Empty));
        assert_eq!(check_free_text(&"x".repeat(201)), Err(FreeTextFault::TooLong));
        assert_eq!(check_free_text(&"字".repeat(200)), Ok(()));
        assert_eq!(check_free_text("a\x1b[2Jb"), Err(FreeTextFault::ControlCharacter));
    }
}
