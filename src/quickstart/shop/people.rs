//! Invented persons: names, identity numbers, cards and addresses that look right and pass their checksums.
//!
//! E-mail addresses use the domains reserved for examples (RFC 2606). Nothing here was taken from a real person;
//! a well-formed number can nevertheless belong to somebody, so sample data is treated like real data.

use std::collections::HashSet;

use chrono::NaiveDate;

use super::dice::Dice;

/// An invented person.
pub struct Person {
    pub name: String,
    pub id_card: String,
    pub mobile: String,
    pub bank_card: String,
    pub email: String,
    pub address: String,
    pub birth_date: NaiveDate,
}

/// Remembers what was handed out, so that identifying numbers stay unique within a shop.
#[derive(Default)]
pub struct Taken(HashSet<String>);

impl Taken {
    /// Makes strings until one is new.
    pub fn fresh(&mut self, mut make: impl FnMut() -> String) -> String {
        loop {
            let text = make();
            if self.0.insert(text.clone()) {
                return text;
            }
        }
    }
}

/// Family names and their Latin spelling, compound ones included.
const FAMILY: &[(&str, &str)] = &[
    ("王", "wang"),
    ("李", "li"),
    ("张", "zhang"),
    ("刘", "liu"),
    ("陈", "chen"),
    ("杨", "yang"),
    ("黄", "huang"),
    ("赵", "zhao"),
    ("吴", "wu"),
    ("周", "zhou"),
    ("徐", "xu"),
    ("孙", "sun"),
    ("马", "ma"),
    ("朱", "zhu"),
    ("胡", "hu"),
    ("郭", "guo"),
    ("何", "he"),
    ("林", "lin"),
    ("罗", "luo"),
    ("梁", "liang"),
    ("欧阳", "ouyang"),
    ("司马", "sima"),
    ("诸葛", "zhuge"),
    ("上官", "shangguan"),
];

/// Syllables of given names and their Latin spelling.
const GIVEN: &[(&str, &str)] = &[
    ("伟", "wei"),
    ("芳", "fang"),
    ("娜", "na"),
    ("敏", "min"),
    ("静", "jing"),
    ("强", "qiang"),
    ("磊", "lei"),
    ("洋", "yang"),
    ("艳", "yan"),
    ("勇", "yong"),
    ("军", "jun"),
    ("杰", "jie"),
    ("娟", "juan"),
    ("涛", "tao"),
    ("明", "ming"),
    ("超", "chao"),
    ("霞", "xia"),
    ("平", "ping"),
    ("刚", "gang"),
    ("桂", "gui"),
    ("晨", "chen"),
    ("雨", "yu"),
    ("婷", "ting"),
    ("浩", "hao"),
    ("宇", "yu"),
    ("欣", "xin"),
    ("怡", "yi"),
    ("佳", "jia"),
    ("思", "si"),
    ("远", "yuan"),
    ("文", "wen"),
    ("博", "bo"),
];

const LATIN_FIRST: &[&str] = &[
    "Anna", "Beatriz", "Carlos", "Daria", "Emil", "Fatima", "George", "Hanna", "Ivan", "Julia", "Karim", "Léa",
    "Marco", "Nadia", "Olga", "Peter",
];

const LATIN_LAST: &[&str] = &[
    "Almeida",
    "Bauer",
    "Castillo",
    "Dubois",
    "Eriksen",
    "Ferrari",
    "Grünwald",
    "Hoffmann",
    "Ivanova",
    "Jensen",
    "Kowalski",
    "Lindqvist",
    "Moreau",
    "Novák",
    "O'Brien",
    "Petrov",
];

/// Division codes (GB/T 2260) with their names down to the district.
const DISTRICTS: &[(&str, &str)] = &[
    ("110105", "北京市朝阳区"),
    ("120104", "天津市南开区"),
    ("210202", "辽宁省大连市中山区"),
    ("310115", "上海市浦东新区"),
    ("320102", "江苏省南京市玄武区"),
    ("330106", "浙江省杭州市西湖区"),
    ("340104", "安徽省合肥市蜀山区"),
    ("350203", "福建省厦门市思明区"),
    ("370202", "山东省青岛市市南区"),
    ("420106", "湖北省武汉市武昌区"),
    ("430104", "湖南省长沙市岳麓区"),
    ("440106", "广东省广州市天河区"),
    ("440305", "广东省深圳市南山区"),
    ("500112", "重庆市渝北区"),
    ("510107", "四川省成都市武侯区"),
    ("610113", "陕西省西安市雁塔区"),
];

const STREETS: &[&str] =
    &["人民路", "中山路", "解放路", "建设街", "文化路", "和平街", "学院路", "滨江路", "花园街", "新华路"];

const MOBILE_PREFIXES: &[&str] = &["131", "135", "138", "139", "150", "152", "158", "176", "186", "189"];

const CARD_PREFIXES: &[&str] = &["621700", "622202", "622848", "623058"];

/// Invents a person, born on `birth_date`.
pub fn invent(dice: &mut Dice, taken: &mut Taken, birth_date: NaiveDate) -> Person {
    let (name, mailbox) = if dice.percent(15) { latin_name(dice) } else { chinese_name(dice) };
    let (division, _) = *dice.pick(DISTRICTS);
    let id_card = taken.fresh(|| id_card(division, birth_date, dice));
    let mobile = taken.fresh(|| format!("{}{}", dice.pick(MOBILE_PREFIXES), dice.digits(8)));
    let bank_card = taken.fresh(|| bank_card(dice));
    let email = taken.fresh(|| {
        let domain = dice.pick(&["example.com", "example.net", "example.org"]);
        format!("{mailbox}.{}@{domain}", dice.digits(4))
    });
    let address = address(dice, taken);
    Person { name, id_card, mobile, bank_card, email, address, birth_date }
}

/// An address that nobody else in the shop has.
pub fn address(dice: &mut Dice, taken: &mut Taken) -> String {
    taken.fresh(|| {
        let (_, district) = dice.pick(DISTRICTS);
        let (street, house, block) = (dice.pick(STREETS), dice.between(1, 899), dice.between(1, 28));
        format!("{district}{street}{house}号{block}栋{}{:02}室", dice.between(1, 30), dice.between(1, 8))
    })
}

fn chinese_name(dice: &mut Dice) -> (String, String) {
    let (family, family_latin) = *dice.pick(FAMILY);
    let (mut name, mut latin) = (family.to_owned(), family_latin.to_owned());
    let syllables = if dice.percent(70) { 2 } else { 1 };
    for _ in 0..syllables {
        let (given, given_latin) = *dice.pick(GIVEN);
        name.push_str(given);
        latin.push_str(given_latin);
    }
    (name, latin)
}

fn latin_name(dice: &mut Dice) -> (String, String) {
    let (first, last) = (*dice.pick(LATIN_FIRST), *dice.pick(LATIN_LAST));
    let mailbox = format!("{first}{last}").chars().filter(char::is_ascii_alphabetic).collect::<String>();
    (format!("{first} {last}"), mailbox.to_ascii_lowercase())
}

/// A resident identity number: division, birth date, serial, check character (GB 11643).
fn id_card(division: &str, birth_date: NaiveDate, dice: &mut Dice) -> String {
    let body = format!("{division}{}{:03}", birth_date.format("%Y%m%d"), dice.between(1, 999));
    let check = id_check(&body);
    format!("{body}{check}")
}

/// The check character of the first 17 digits (ISO 7064 MOD 11-2, weight 2^(17-i) mod 11).
pub fn id_check(body: &str) -> char {
    let sum = body.bytes().fold(0u32, |sum, digit| (sum + u32::from(digit - b'0')) * 2 % 11);
    match (12 - sum) % 11 {
        10 => 'X',
        digit => char::from(b'0' + digit as u8),
    }
}

fn bank_card(dice: &mut Dice) -> String {
    let body = format!("{}{}", dice.pick(CARD_PREFIXES), dice.digits(12));
    let check = luhn_check(&body);
    format!("{body}{check}")
}

/// The Luhn check digit (ISO/IEC 7812-1) that follows `body`.
pub fn luhn_check(body: &str) -> char {
    let sum: u32 = body
        .bytes()
        .rev()
        .enumerate()
        .map(|(place, digit)| {
            let digit = u32::from(digit - b'0');
            if place % 2 == 0 { digit * 2 / 10 + digit * 2 % 10 } else { digit }
        })
        .sum();
    char::from(b'0' + ((10 - sum % 10) % 10) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_characters_of_known_numbers() {
        // The examples of GB 11643 (1999, appendix) and of ISO/IEC 7812-1.
        assert_eq!(id_check("11010519491231002"), 'X');
        assert_eq!(id_check("44052418800101001"), '4');
        assert_eq!(luhn_check("7992739871"), '3');
        assert_eq!(luhn_check("411111111111111"), '1');
    }
}
