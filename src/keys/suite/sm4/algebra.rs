//! The algebra behind SM4's S-box, computed at compile time.
//!
//! GB/T 32907 prints the S-box as a table. It is affine ∘ inversion ∘ affine, with one affine map twice: `S(x) = M(M(x)⁻¹)`,
//! the inversion in GF(2)\[t\] / (t⁸+t⁷+t⁶+t⁵+t⁴+t²+1), 0 staying 0 (F. Liu et al., Analysis of the SMS4 block cipher, ACISP 2007).
//! Fields of 256 elements are isomorphic, so the inversion may be done in any other one, with the change of field folded into
//! the two affine maps: in the field of AES, for which processors have instructions (some of them with AES's own affine map behind it), or in a tower of small fields, which
//! needs few logic gates. The tests compare every value with the reference implementation's table.

/// The coefficients of SM4's field polynomial.
const SM4_POLYNOMIAL: u16 = 0x1f5;
/// The coefficients of AES's field polynomial (FIPS 197), which is also that of the processors' instruction.
const AES_POLYNOMIAL: u16 = 0x11b;
/// Row 0 of the matrix of M; each further row is the one before, rotated left by one.
const FIRST_ROW: u8 = 0xa7;
/// What M adds.
const CONSTANT: u8 = 0xd3;

/// A representation of the field of 256 elements.
#[derive(Clone, Copy)]
enum Field {
    /// Polynomials over GF(2) modulo this one.
    Polynomials(u16),
    /// Pairs of pairs of pairs of bits, see [`tower_times`].
    Tower,
}

impl Field {
    const fn times(self, a: u8, b: u8) -> u8 {
        match self {
            Self::Polynomials(modulus) => {
                let (mut a, mut product, mut bit) = (a as u16, 0_u16, 0);
                while bit < 8 {
                    if (b >> bit) & 1 == 1 {
                        product ^= a;
                    }
                    a <<= 1;
                    if a & 0x100 != 0 {
                        a ^= modulus;
                    }
                    bit += 1;
                }
                product as u8
            }
            Self::Tower => tower_times(a, b),
        }
    }
}

/// The product in GF(4): bits (a₁, a₀) stand for a₁w + a₀, with w² = w + 1.
const fn pair_times(a: u8, b: u8) -> u8 {
    let (high, low) = ((a >> 1) & (b >> 1), a & b & 1);
    let middle = ((a >> 1) & b & 1) ^ (a & (b >> 1) & 1);
    ((middle ^ high) << 1) | (low ^ high)
}

/// The product in GF(16): pairs (a₁, a₀) stand for a₁z + a₀, with z² = z + w.
const fn nibble_times(a: u8, b: u8) -> u8 {
    let high = pair_times(a >> 2, b >> 2);
    let middle = pair_times(a >> 2, b & 3) ^ pair_times(a & 3, b >> 2);
    ((middle ^ high) << 2) | (pair_times(a & 3, b & 3) ^ pair_times(high, 0b10))
}

/// The product in the tower GF(((2²)²)²): nibbles (a₁, a₀) stand for a₁y + a₀, with y² = y + wz.
const fn tower_times(a: u8, b: u8) -> u8 {
    let high = nibble_times(a >> 4, b >> 4);
    let middle = nibble_times(a >> 4, b & 15) ^ nibble_times(a & 15, b >> 4);
    ((middle ^ high) << 4) | (nibble_times(a & 15, b & 15) ^ nibble_times(high, 0b1000))
}

/// An affine map of bytes: bit i of the result is the parity of `rows[i] & x`, plus bit i of `constant`.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) rows: [u8; 8],
    pub(super) constant: u8,
}

impl Affine {
    pub(super) const fn of(self, x: u8) -> u8 {
        let (mut out, mut bit) = (self.constant, 0);
        while bit < 8 {
            out ^= ((self.rows[bit] & x).count_ones() as u8 & 1) << bit;
            bit += 1;
        }
        out
    }

    /// The linear map that sends bit i to `columns[i]`.
    const fn linear(columns: [u8; 8]) -> Self {
        let (mut rows, mut at) = ([0; 8], 0);
        while at < 64 {
            rows[at / 8] |= ((columns[at % 8] >> (at / 8)) & 1) << (at % 8);
            at += 1;
        }
        Self { rows, constant: 0 }
    }

    /// First this map, then `next`.
    const fn then(self, next: Self) -> Self {
        let (mut columns, mut bit) = ([0; 8], 0);
        while bit < 8 {
            columns[bit] = next.of(self.of(1 << bit)) ^ next.of(self.of(0));
            bit += 1;
        }
        Self { constant: next.of(self.of(0)), ..Self::linear(columns) }
    }

    /// The inverse of a linear map.
    const fn inverse(self) -> Self {
        let (mut columns, mut x) = ([0; 8], 1_u8);
        while x != 0 {
            let image = self.of(x);
            if image.is_power_of_two() {
                columns[image.trailing_zeros() as usize] = x;
            }
            x = x.wrapping_add(1);
        }
        Self::linear(columns)
    }

    /// Images of the numbers below 16, and of their sixteenfolds without the constant: `of(x)` is the sum of one of each.
    pub(super) const fn of_nibbles(self) -> [[u8; 16]; 2] {
        let (mut images, mut nibble) = ([[0; 16]; 2], 0);
        while nibble < 16 {
            images[0][nibble] = self.of(nibble as u8);
            images[1][nibble] = self.of((nibble as u8) << 4) ^ self.constant;
            nibble += 1;
        }
        images
    }

    const fn weight(self) -> u32 {
        u64::from_be_bytes(self.rows).count_ones()
    }

    /// The matrix as the GFNI instructions take it: the row of bit 0 in the highest byte.
    pub(super) const fn gfni_matrix(self) -> i64 {
        i64::from_be_bytes(self.rows)
    }
}

/// The affine map behind the inversion in the S-box of AES (FIPS 197, 5.1.1), undone.
const AES_AFFINE_UNDONE: Affine = {
    let (mut rows, mut bit) = ([0; 8], 0);
    while bit < 8 {
        rows[bit] = 0xf1_u8.rotate_left(bit as u32);
        bit += 1;
    }
    let linear = Affine { rows, constant: 0 }.inverse();
    Affine { constant: linear.of(0x63), ..linear }
};

/// M.
const SM4_AFFINE: Affine = {
    let (mut rows, mut bit) = ([0; 8], 0);
    while bit < 8 {
        rows[bit] = FIRST_ROW.rotate_left(bit as u32);
        bit += 1;
    }
    Affine { rows, constant: CONSTANT }
};

/// The S-box as `after(before(x)⁻¹)`, the inversion in another field than SM4's.
#[derive(Clone, Copy)]
pub(super) struct SBox {
    pub(super) before: Affine,
    pub(super) after: Affine,
}

/// Among the eight isomorphisms from SM4's field to `field`, takes the one whose maps need the fewest additions.
const fn s_box_in(field: Field) -> SBox {
    let mut best: Option<SBox> = None;
    let mut root = 2_u8;
    while root != 0 {
        let (mut powers, mut power, mut value, mut bit) = ([0; 8], 1, 0, 0);
        while bit < 9 {
            if bit < 8 {
                powers[bit] = power;
            }
            if (SM4_POLYNOMIAL >> bit) & 1 == 1 {
                value ^= power;
            }
            power = field.times(power, root);
            bit += 1;
        }
        // A root of SM4's polynomial in the other field: t ↦ root is an isomorphism.
        if value == 0 {
            let change = Affine::linear(powers);
            let candidate = SBox { before: SM4_AFFINE.then(change), after: change.inverse().then(SM4_AFFINE) };
            let weight = candidate.before.weight() + candidate.after.weight();
            let is_better = match best {
                Some(best) => weight < best.before.weight() + best.after.weight(),
                None => true,
            };
            if is_better {
                best = Some(candidate);
            }
        }
        root = root.wrapping_add(1);
    }
    match best {
        Some(best) => best,
        // Two fields of 256 elements always are isomorphic; the tests would see this one.
        None => SBox { before: SM4_AFFINE, after: SM4_AFFINE },
    }
}

/// The S-box with the inversion in the field of AES.
pub(super) const IN_AES_FIELD: SBox = s_box_in(Field::Polynomials(AES_POLYNOMIAL));
/// The S-box with that of AES in place of the inversion.
pub(super) const AROUND_AES: SBox =
    SBox { before: IN_AES_FIELD.before, after: AES_AFFINE_UNDONE.then(IN_AES_FIELD.after) };
/// The S-box with the inversion in the tower of [`tower_times`].
pub(super) const IN_TOWER: SBox = s_box_in(Field::Tower);

#[cfg(test)]
mod tests {
    use super::*;

    fn inverse(field: Field, x: u8) -> u8 {
        (0..=255).find(|y| field.times(x, *y) == 1).unwrap_or(0)
    }

    #[test]
    fn all_three_fields_give_the_same_s_box() {
        let through = |s_box: SBox, field| (0..=255).map(move |x| s_box.after.of(inverse(field, s_box.before.of(x))));
        let own = SBox { before: SM4_AFFINE, after: SM4_AFFINE };
        let table: Vec<u8> = through(own, Field::Polynomials(SM4_POLYNOMIAL)).collect();
        // The first and the last row of the table in GB/T 32907-2016, 6.2.1; the whole of it is compared by way of the cipher.
        assert_eq!(hex::encode(&table[..16]), "d690e9fecce13db716b614c228fb2c05");
        assert_eq!(hex::encode(&table[240..]), "18f07dec3adc4d2079ee5f3ed7cb3948");
        assert!(through(IN_AES_FIELD, Field::Polynomials(AES_POLYNOMIAL)).eq(table.iter().copied()));
        // FIPS 197, 5.1.1: bit i of the S-box is bit i of the inverse and its four predecessors, and of 0x63.
        let aes = |x: u8| [0, 1, 2, 3, 4].iter().fold(0x63, |sum, by| sum ^ x.rotate_left(*by));
        let of_aes = |x| aes(inverse(Field::Polynomials(AES_POLYNOMIAL), x));
        assert_eq!((of_aes(0), of_aes(0x53)), (0x63, 0xed));
        assert!((0..=255).map(|x| AROUND_AES.after.of(of_aes(AROUND_AES.before.of(x)))).eq(table.iter().copied()));
        for map in [AROUND_AES.before, AROUND_AES.after] {
            let [low, high] = map.of_nibbles();
            assert!((0..=255_u8).all(|x| map.of(x) == low[usize::from(x & 15)] ^ high[usize::from(x >> 4)]));
        }
        assert!(through(IN_TOWER, Field::Tower).eq(table.iter().copied()));
    }

    #[test]
    fn every_element_but_zero_has_an_inverse() {
        for field in [Field::Polynomials(SM4_POLYNOMIAL), Field::Polynomials(AES_POLYNOMIAL), Field::Tower] {
            assert!((1..=255).all(|x| inverse(field, x) != 0));
        }
    }
}
