//! Chinese addresses, cut behind the district or county.
//!
//! There is no list of the country's 3,000 districts here; a segment is recognised by how such names end. Where that is in
//! doubt, less is shown: the city, or nothing.

use super::name::is_han;

/// Names of the units of province level without their endings.
const PROVINCES: [&str; 34] = [
    "北京",
    "天津",
    "上海",
    "重庆",
    "河北",
    "山西",
    "辽宁",
    "吉林",
    "黑龙江",
    "江苏",
    "浙江",
    "安徽",
    "福建",
    "江西",
    "山东",
    "河南",
    "湖北",
    "湖南",
    "广东",
    "海南",
    "四川",
    "贵州",
    "云南",
    "陕西",
    "甘肃",
    "青海",
    "台湾",
    "内蒙古",
    "广西",
    "西藏",
    "宁夏",
    "新疆",
    "香港",
    "澳门",
];

/// Endings of the units of province level, longest first.
const PROVINCE_ENDINGS: [&str; 7] = ["维吾尔自治区", "壮族自治区", "回族自治区", "特别行政区", "自治区", "省", "市"];
const CITY_ENDINGS: [&str; 4] = ["自治州", "地区", "盟", "市"];
const DISTRICT_ENDINGS: [&str; 6] = ["自治县", "自治旗", "区", "县", "旗", "市"];

/// Words that end like a district or a city and are none: estates, premises, markets.
const NO_DISTRICTS: [&str; 21] = [
    "小区",
    "社区",
    "校区",
    "厂区",
    "院区",
    "景区",
    "库区",
    "片区",
    "街区",
    "园区",
    "营区",
    "宅区",
    "生活区",
    "属区",
    "墅区",
    "商业区",
    "仓储区",
    "地区",
    "超市",
    "夜市",
    "菜市",
];

/// `北京市朝阳区建国路88号` → `北京市朝阳区`; `None` when it does not begin with a province, nor with a city and its district.
/// Strict shows the province only.
pub(super) fn mask(address: &str, strict: bool) -> Option<String> {
    let address: String = address.chars().filter(|letter| !letter.is_whitespace()).collect();
    let address = address.strip_prefix("中国").unwrap_or(&address);
    let province = province(address);
    // Without its ending the name of a province can be that of a road (北京路); what follows must then confirm it.
    let certain = province.filter(|(name, _)| PROVINCE_ENDINGS.iter().any(|ending| name.ends_with(ending)));
    if strict {
        return certain.map(|(province, _)| province.to_owned());
    }
    let rest = province.map_or(address, |(_, rest)| rest);
    // A municipality's name can stand twice (上海市上海市浦东新区); the second one is then its city.
    let city = segment(rest, &CITY_ENDINGS).filter(|(city, _)| !contains_district(city));
    let after_city = city.map_or(rest, |(_, rest)| rest);
    let end = match segment(after_city, &DISTRICT_ENDINGS) {
        Some((_, behind)) if province.is_some() || city.is_some() => behind,
        None if certain.is_some() || (province.is_some() && city.is_some()) => after_city,
        _ => return None,
    };
    Some(address[..address.len() - end.len()].to_owned())
}

/// `浙江省杭州市西湖区文三路1号` → `浙江省杭州市`, or `浙江省`. A city alone must be all there is, or stand before its district.
pub(super) fn place(address: &str, to_city: bool) -> Option<String> {
    let address: String = address.chars().filter(|letter| !letter.is_whitespace()).collect();
    let address = address.strip_prefix("中国").unwrap_or(&address);
    let province = province(address);
    let certain = province.filter(|(name, _)| PROVINCE_ENDINGS.iter().any(|ending| name.ends_with(ending)));
    let certain_name = certain.map(|(name, _)| name.to_owned());
    if !to_city {
        return certain_name;
    }
    let rest = province.map_or(address, |(_, rest)| rest);
    let Some((_, behind)) = segment(rest, &CITY_ENDINGS).filter(|(city, _)| !contains_district(city)) else {
        return certain_name;
    };
    let is_sure = province.is_some() || behind.is_empty() || segment(behind, &DISTRICT_ENDINGS).is_some();
    is_sure.then(|| address[..address.len() - behind.len()].to_owned()).or(certain_name)
}

/// Whether a would-be city spans a district and more (海淀区上地城市).
fn contains_district(city: &str) -> bool {
    city.trim_end_matches("地区").contains(['区', '县', '旗'])
}

fn province(address: &str) -> Option<(&str, &str)> {
    let name = PROVINCES.iter().find(|name| address.starts_with(**name))?;
    let rest = &address[name.len()..];
    let ending = PROVINCE_ENDINGS.iter().find(|ending| rest.starts_with(**ending)).map_or(0, |ending| ending.len());
    Some(address.split_at(name.len() + ending))
}

/// The shortest beginning of at most 12 Chinese characters that ends like an administrative unit, and what follows.
fn segment<'a>(text: &'a str, endings: &[&str]) -> Option<(&'a str, &'a str)> {
    let letters = text.char_indices().take(12).take_while(|(_, letter)| is_han(*letter));
    for (at, letter) in letters.skip(1) {
        let candidate = &text[..at + letter.len_utf8()];
        // A road's name is never part of a district's, except where the district's begins with the same character (路桥区).
        if matches!(letter, '路' | '道' | '街' | '巷' | '弄' | '号' | '號' | '栋' | '幢' | '室') {
            return None;
        }
        if endings.iter().any(|ending| candidate.ends_with(ending)) {
            let doubtful = NO_DISTRICTS.iter().any(|word| candidate.ends_with(word) && !endings.contains(word));
            return if doubtful || names_a_village(candidate) {
                None
            } else {
                Some((candidate, &text[candidate.len()..]))
            };
        }
    }
    None
}

/// Whether a town or village stands before the district's name, where it would be shown as well. 新乡县 and 周村区 are districts.
fn names_a_village(candidate: &str) -> bool {
    let letters: Vec<char> = candidate.chars().collect();
    let inner = letters.len().saturating_sub(2);
    letters.iter().take(inner).skip(1).any(|letter| matches!(letter, '镇' | '乡' | '村'))
}
