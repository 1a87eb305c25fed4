use super::*;
use proptest::prelude::*;

fn shown(kind: FieldKind, value: &str) -> String {
    mask(kind, value, Profile::Standard)
}

fn strict(kind: FieldKind, value: &str) -> String {
    mask(kind, value, Profile::Strict)
}

/// Every rule with its edge cases, in both profiles.
const GOLDEN: &str = include_str!("../../../tests/vectors/masks.tsv");

#[test]
fn every_rule_masks_as_the_table_says() {
    let mut rules: Vec<&str> = Vec::new();
    for line in GOLDEN.lines().filter(|line| !line.starts_with('#')) {
        let [rule, kind, value, standard, hidden] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line:?}")
        };
        let kind: FieldKind = serde_json::from_value(kind.into()).unwrap();
        assert_eq!((shown(kind, value).as_str(), strict(kind, value).as_str()), (standard, hidden), "{rule} {value:?}");
        rules.push(rule);
    }
    rules.dedup();
    assert_eq!(rules, ["R1-6", "R1-7", "R1-46", "R1-8", "R1-9", "R1-10", "R0-4", "R0-9"]);
}

#[test]
fn a_card_never_shows_what_a_customer_is_asked_for() {
    let field = |kind, category| FieldSpec { kind, category, level: None };
    let on = |kind, category| on_card(&field(kind, category), Profile::Standard);
    for kind in FieldKind::ALL {
        let secret = [FieldKind::IdCard, FieldKind::Licence, FieldKind::SocialSecurity].contains(&kind)
            || kind.default_class().0 == Category::Sensitive;
        assert_eq!(on(kind, None) == Profile::Strict, secret, "{kind:?}");
        assert_eq!(on(kind, Some(Category::Sensitive)), Profile::Strict);
        assert_eq!(on_card(&field(kind, None), Profile::Strict), Profile::Strict);
    }
}

#[test]
fn identity_numbers_show_six_and_six() {
    assert_eq!(shown(FieldKind::IdCard, "110101199001011237"), "110101******011237");
    assert_eq!(shown(FieldKind::IdCard, "11010119900101127X"), "110101******01127X");
    assert_eq!(strict(FieldKind::IdCard, "110101199001011237"), "1****************7");
    for malformed in ["110101900101123", "110101199001011238", "11010119900101127x", "1101011990010112", "张三", "X"]
    {
        assert_eq!(shown(FieldKind::IdCard, malformed), HIDDEN, "{malformed}");
        assert_eq!(strict(FieldKind::IdCard, malformed), HIDDEN, "{malformed}");
    }
    assert!(is_id_card("11010119900101127X") && !is_id_card("110101199001011270") && !is_id_card("X1010119900101127X"));
}

#[test]
fn mobiles_hide_the_middle_four() {
    assert_eq!(shown(FieldKind::Mobile, "13812345678"), "138****5678");
    assert_eq!(shown(FieldKind::Mobile, "+86 138-1234-5678"), "+86 138****5678");
    assert_eq!(strict(FieldKind::Mobile, "13812345678"), "1*********8");
    for malformed in
        ["1381234567", "138123456789", "12812345678", "2381234567", "1381234567a", "１３８１２３４５６７８"]
    {
        assert_eq!(shown(FieldKind::Mobile, malformed), HIDDEN, "{malformed}");
    }
    assert!(is_mobile("19900000000") && !is_mobile("1381234567") && !is_mobile(""));
}

#[test]
fn landlines_keep_area_code_and_last_four() {
    assert_eq!(shown(FieldKind::Landline, "010-65551234"), "010-****1234");
    assert_eq!(shown(FieldKind::Landline, "01065551234"), "010-****1234");
    assert_eq!(shown(FieldKind::Landline, "0531 7654321"), "0531-***4321");
    assert_eq!(strict(FieldKind::Landline, "010-65551234"), "0*********4");
    for malformed in ["65551234", "010-655512", "110-65551234", "010-655512345", "0110-6555123", "010_65551234", "010"]
    {
        assert_eq!(shown(FieldKind::Landline, malformed), HIDDEN, "{malformed}");
        assert!(!is_landline(malformed));
    }
    assert!(is_landline("010-65551234") && is_landline("021-34567890") && is_landline("0755-23456789"));
}

#[test]
fn bank_accounts_show_three_and_four() {
    assert_eq!(shown(FieldKind::BankCard, "6222021234567890123"), "622************0123");
    assert_eq!(shown(FieldKind::BankCard, "6222 0212 3456 7890"), "622*********7890");
    assert_eq!(strict(FieldKind::BankCard, "6222021234567890123"), "6*****************3");
    for malformed in ["1234567", "12345678", "62220212345", "622202123456789012a", "6222021234567890123622202123456789"]
    {
        assert_eq!(shown(FieldKind::BankCard, malformed), HIDDEN, "{malformed}");
    }
    assert!(is_bank_card("4111111111111111") && !is_bank_card("4111111111111112") && !is_bank_card("0"));
}

#[test]
fn chinese_names_show_the_surname() {
    let cases = [
        ("张三丰", "张某"),
        ("张三", "张某"),
        ("欧阳锋", "欧阳某"),
        ("歐陽修", "歐陽某"),
        ("司马相如", "司马某"),
        ("欧阳", "欧某"),
        ("张", "某"),
        ("买买提·艾力", "买某"),
        ("王一二三四五", "王某"),
    ];
    for (name, masked) in cases {
        assert_eq!(shown(FieldKind::Name, name), masked);
        assert_eq!(strict(FieldKind::Name, name), HIDDEN);
    }
}

#[test]
fn other_names_show_initials() {
    let cases = [
        ("John Smith", "J*** S***"),
        ("Anna-Maria  O'Neil", "A*** O***"),
        ("J. Smith", "*** S***"),
        ("Élodie", "É***"),
        ("Иван Петров", "И*** П***"),
    ];
    for (name, masked) in cases {
        assert_eq!(shown(FieldKind::Name, name), masked);
    }
    for malformed in
        ["张John", "user123", "a@b.com", "-Smith", "住在北京市朝阳区建国路的张三", "13812345678", "张三（男）"]
    {
        assert_eq!(shown(FieldKind::Name, malformed), HIDDEN, "{malformed}");
    }
}

#[test]
fn addresses_stop_behind_the_district() {
    let cases = [
        ("北京市朝阳区建国路88号", "北京市朝阳区"),
        ("北京朝阳区建国路88号", "北京朝阳区"),
        ("广东省深圳市南山区科技园路1号", "广东省深圳市南山区"),
        ("深圳市南山区科技园路1号", "深圳市南山区"),
        ("四川省成都市武侯区天府大道1号", "四川省成都市武侯区"),
        ("上海市浦东新区张江路1号", "上海市浦东新区"),
        ("山东省济南市市中区经二路1号", "山东省济南市市中区"),
        ("浙江省台州市路桥区路北街道1号", "浙江省台州市路桥区"),
        ("黑龙江省哈尔滨市道里区中央大街1号", "黑龙江省哈尔滨市道里区"),
        ("吉林省延边朝鲜族自治州延吉市光明街1号", "吉林省延边朝鲜族自治州延吉市"),
        ("内蒙古自治区锡林郭勒盟正蓝旗上都镇1号", "内蒙古自治区锡林郭勒盟正蓝旗"),
        ("新疆维吾尔自治区乌鲁木齐市天山区解放路1号", "新疆维吾尔自治区乌鲁木齐市天山区"),
        ("河南省新乡市新乡县小冀镇1号", "河南省新乡市新乡县"),
        ("西藏自治区阿里地区普兰县1号", "西藏自治区阿里地区普兰县"),
        ("江西省景德镇市珠山区瓷都大道1号", "江西省景德镇市珠山区"),
        ("广东省东莞市长安镇乌沙社区1号", "广东省东莞市"),
        ("广东省中山市小榄镇东区1号", "广东省中山市"),
        ("北京市建国路88号阳光小区", "北京市"),
        ("北京市海淀区上地城市花园1号", "北京市海淀区"),
        ("中国北京市 朝阳区 建国路88号", "北京市朝阳区"),
    ];
    for (address, masked) in cases {
        assert_eq!(shown(FieldKind::Address, address), masked, "{address}");
    }
    assert_eq!(strict(FieldKind::Address, "广东省深圳市南山区科技园路1号"), "广东省");
    for unparseable in
        ["建国路88号", "老王超市对面", "阳光小区3号楼", "北京路88号", "10 Downing Street", "深圳市", "朝阳区建国路88号"]
    {
        assert_eq!(shown(FieldKind::Address, unparseable), HIDDEN, "{unparseable}");
    }
}

#[test]
fn other_kinds_have_their_masks() {
    let cases = [
        (FieldKind::Email, "somebody@example.com", "s***@example.com"),
        (FieldKind::Email, "s@example.com", "***@example.com"),
        (FieldKind::BirthDate, "1990-01-01", "1990-**-**"),
        (FieldKind::BirthDate, "1990-01-01 00:00:00", "1990-**-**"),
        (FieldKind::IpAddress, "192.0.2.7", "192.0.*.*"),
        (FieldKind::Licence, "110101199001011237", "110101******011237"),
        (FieldKind::Licence, "91110000600037341L", "91**************1L"),
        (FieldKind::DeviceId, "a1b2c3d4e5f6", "a1********f6"),
        (FieldKind::CustomerId, "C20260315004217", "C20260315004217"),
        (FieldKind::PurchaseFrequency, "12", "12"),
        (FieldKind::Complaint, "请打13812345678", "请打138****5678"),
    ];
    for (kind, value, masked) in cases {
        assert_eq!(shown(kind, value), masked);
    }
    let hidden = [
        (FieldKind::Email, "somebody"),
        (FieldKind::Email, "a@b"),
        (FieldKind::Email, "some body@example.com"),
        (FieldKind::BirthDate, "1. Januar 1990"),
        (FieldKind::IpAddress, "2001:db8::7"),
        (FieldKind::DeviceId, "a1b2c3"),
        (FieldKind::CustomerId, "张三"),
        (FieldKind::PurchaseFrequency, "13812345678"),
        (FieldKind::Health, "高血压"),
        (FieldKind::Credit, "AAA"),
        (FieldKind::Biometric, "x"),
        (FieldKind::Belief, "x"),
        (FieldKind::Location, "39.9,116.4"),
        (FieldKind::Password, "secret"),
    ];
    for (kind, value) in hidden {
        assert_eq!(shown(kind, value), HIDDEN);
    }
    assert_eq!(strict(FieldKind::Email, "somebody@example.com"), "***@***");
}

#[test]
fn customer_ids_have_one_form() {
    assert!(is_customer_id("C20260315004217"));
    for malformed in [
        "C20260230123456",
        "C2026031512345",
        "c20260315004217",
        "C202603150042170",
        "20260315004217",
        "C2026031500421７",
    ] {
        assert!(!is_customer_id(malformed), "{malformed}");
    }
}

#[test]
fn text_is_masked_where_it_identifies() {
    let cases = [
        ("请回电13812345678，身份证110101199001011237，谢谢。", "请回电138****5678，身份证110101******011237，谢谢。"),
        ("id 11010119900101127x.", "id 110101******01127X."),
        ("电话138 1234 5678或138-12345678", "电话138****5678或138****5678"),
        ("座机010-65551234转801", "座机010-****1234转801"),
        ("座机(010)65551234-801", "座机(010-****1234-801"),
        ("座机(010) 6555-1234", "座机(010-****1234"),
        ("卡号6222 0212 3456 7890 123已换", "卡号622************0123已换"),
        ("卡号6222021234567890123", "卡号622************0123"),
        ("+86 138-1234-5678", "+86 138****5678"),
        ("8613812345678", "86138****5678"),
        ("call +1 415 555 0100 now", "call +****** now"),
        ("邮箱zhang.san@example.com.", "邮箱z***@example.com."),
        ("13812345678@qq.com", "1***@qq.com"),
        ("１３８１２３４５６７８", "138****5678"),
        ("QQ 123456789", "QQ ******"),
        ("旧证110101900101123", "旧证******"),
        ("2023-05-10 13812345678", "2023-05-10 138****5678"),
        ("110101 19900101 127X ok", "110101******01127X ok"),
    ];
    for (text, masked) in cases {
        assert_eq!(mask_text(text, Profile::Standard), masked);
    }
    for unchanged in [
        "2023-05-10 14:30:05 下单2件，共1999.50元，订单20230001",
        "no numbers @ all",
        "",
        "第12章 3-4",
        "a@b",
        "20230510-01",
    ] {
        assert_eq!(mask_text(unchanged, Profile::Standard), unchanged);
    }
    assert_eq!(mask_text("13812345678 a@b.cn", Profile::Strict), "1*********8 ***@***");
}

#[test]
fn database_values_are_masked_by_kind() {
    let integer = Value::Integer(13_812_345_678);
    assert_eq!(mask_value(FieldKind::Mobile, &integer, Profile::Standard), "138****5678");
    assert_eq!(mask_value(FieldKind::Name, &Value::Null, Profile::Standard), "");
    assert_eq!(mask_value(FieldKind::FreeText, &Value::Blob(b"x".to_vec()), Profile::Standard), HIDDEN);
    assert_eq!(mask_value(FieldKind::Name, &Value::Text("  ".to_owned()), Profile::Standard), "");
}

/// A valid identity number from 17 digits.
fn id_from(digits: &str) -> String {
    ('0'..='9').chain(['X']).map(|check| format!("{digits}{check}")).find(|id| is_id_card(id)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_identity_number_has_one_check_character(digits in "[0-9]{17}") {
        let valid = ('0'..='9').chain(['X']).filter(|check| is_id_card(&format!("{digits}{check}"))).count();
        prop_assert_eq!(valid, 1);
        let id = id_from(&digits);
        prop_assert_eq!(shown(FieldKind::IdCard, &id), format!("{}******{}", &id[..6], &id[12..]));
    }

    #[test]
    fn masks_never_show_the_value(value in "\\PC{1,24}|[0-9]{1,24}|[0-9X -]{1,24}|[张王李欧阳市区县路0-9]{1,16}") {
        let personal = FieldKind::ALL.into_iter().filter(|kind| {
            let (free, business) = (FieldKind::FreeText, [FieldKind::Complaint, FieldKind::Preference, FieldKind::History]);
            !business.contains(kind) && ![free, FieldKind::CustomerId, FieldKind::PurchaseFrequency, FieldKind::Address].contains(kind)
        });
        for kind in personal {
            for profile in [Profile::Standard, Profile::Strict] {
                let masked = mask(kind, &value, profile);
                let value = value.trim();
                prop_assert!(value.is_empty() || masked.contains(['*', '某']), "{:?}", kind);
                prop_assert!(value.is_empty() || value == "某" || value.chars().all(|letter| letter == '*') || masked != value);
            }
        }
    }

    #[test]
    fn text_never_shows_a_number_planted_in_it(
        before in "[一-龟a-z，。 ]{0,8}", behind in "[一-龟，。 ]{0,8}", mobile in "1[3-9][0-9]{9}", digits in "[1-9][0-9]{16}",
        card in "62[0-9]{17}", name in "[a-z]{2,8}",
    ) {
        let id = id_from(&digits);
        let email = format!("{name}@example.com");
        for planted in [&mobile, &id, &card, &email] {
            let text = format!("{before} {planted}{behind}");
            for profile in [Profile::Standard, Profile::Strict] {
                let masked = mask_text(&text, profile);
                prop_assert!(!masked.contains(planted.as_str()), "planted shows through");
                prop_assert!(masked.starts_with(before.as_str()) && masked.ends_with(behind.as_str()), "the rest is unchanged");
                let longest = masked.split(|letter: char| !letter.is_ascii_digit()).map(str::len).max().unwrap_or(0);
                prop_assert!(longest <= 6);
            }
        }
    }

    #[test]
    fn text_without_digits_and_signs_is_unchanged(text in "[^0-9０-９@]{0,40}") {
        prop_assert_eq!(mask_text(&text, Profile::Standard), text);
    }
}
