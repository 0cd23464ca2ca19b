"""Assign emoji to classes, group their variants, and hold some of them out for validation.

The classes follow the groups of Unicode's emoji list (emoji-test.txt, Emoji 17), activities among the objects.
"""

import bisect
import hashlib

#: Class -> first code points of its emoji in hexadecimal, single ones and ranges that include both ends.
EMOJI_CLASSES = {
    'smileys': (
        '2620 2639-263A 2763-2764 1F479-1F47B 1F47D-1F480 1F48B-1F48C 1F493-1F49F 1F4A2 1F4A4-1F4A6 1F4A8-1F4A9 '
        '1F4AB-1F4AD 1F4AF 1F573 1F5A4 1F5E8-1F5EF 1F600-1F644 1F648-1F64A 1F90D-1F90E 1F910-1F917 1F920-1F925 '
        '1F927-1F92F 1F970-1F976 1F978-1F97A 1F9D0 1F9E1 1FA75-1FA77 1FAE0-1FAE5 1FAE8-1FAEF'
    ),
    'people': (
        '261D 26F7 26F9 270A-270D 1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F440-1F450 1F463-1F478 1F47C 1F481-1F483 '
        '1F485-1F487 1F48F 1F491 1F4AA 1F574-1F575 1F57A 1F590-1F596 1F5E3 1F645-1F647 1F64B-1F64F 1F6A3 1F6B4-1F6B6 '
        '1F6C0 1F6CC 1F90C 1F90F 1F918-1F91F 1F926 1F930-1F93E 1F977 1F9B4-1F9B9 1F9BB 1F9BE-1F9BF 1F9CC-1F9CF '
        '1F9D1-1F9E0 1FAC0-1FAC8 1FAE6 1FAF0-1FAF8'
    ),
    'animals': (
        '2618 1F331-1F335 1F337-1F33C 1F33E-1F344 1F3F5 1F400-1F43F 1F490 1F4AE 1F54A 1F577-1F578 1F940 1F980-1F9AE '
        '1FAB0-1FAB4 1FAB6-1FABF 1FACD-1FACF'
    ),
    'food': '2615 1F32D-1F330 1F336 1F33D 1F345-1F37F 1F382 1F3FA 1F52A 1F942-1F944 1F950-1F96F 1F9C0-1F9CB 1FAD0-1FADC',
    'travel': (
        '231A-231B 23F0-23F3 2600-2604 2614 2668 2693 26A1 26C4-26C8 26E9-26F2 26F4-26F5 26FA-26FD 2708 2744 2B50 '
        '1F300-1F32C 1F3A0-1F3A2 1F3AA 1F3CD-1F3CE 1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F488 1F492 1F4A7 1F4BA 1F525 '
        '1F54B-1F54D 1F550-1F567 1F570 1F5FA-1F5FE 1F680-1F6A2 1F6A4-1F6A8 1F6B2 1F6CE 1F6D1 1F6D5-1F6D6 1F6D8 '
        '1F6DD-1F6DF 1F6E2-1F6F6 1F6F8-1F6FC 1F9BC-1F9BD 1F9ED 1F9F1 1F9F3 1FA82 1FA90 1FAA8 1FAB5'
    ),
    'objects': (
        '2328 260E 265F-2666 2692 2694 2696-2699 26B0-26BE 26CF-26D3 26F3 26F8 2702 2709 270F-2712 2728 1F004-1F0CF '
        '1F380-1F381 1F383-1F384 1F386-1F38B 1F38D-1F39F 1F3A3-1F3A5 1F3A7-1F3A9 1F3AB-1F3C0 1F3C5-1F3C6 1F3C8-1F3C9 '
        '1F3CF-1F3D3 1F3EE 1F3F7-1F3F9 1F451-1F462 1F484 1F489-1F48A 1F48D-1F48E 1F4A1 1F4A3 1F4B0 1F4B3-1F4B9 '
        '1F4BB-1F4DA 1F4DC-1F4F2 1F4F7-1F4FF 1F507-1F517 1F526-1F529 1F52B-1F52E 1F56F 1F576 1F579 1F587-1F58D '
        '1F5A5-1F5E1 1F5F3 1F5FF 1F6AA 1F6AC 1F6BD 1F6BF 1F6C1 1F6CB 1F6CD 1F6CF 1F6D2 1F6D7 1F6E0-1F6E1 1F6F7 1F93F '
        '1F941 1F945-1F94F 1F97B-1F97F 1F9AF 1F9BA 1F9E2-1F9EC 1F9EE-1F9F0 1F9F2 1F9F4-1FA74 1FA78-1FA81 1FA83-1FA8F '
        '1FA91-1FAA7 1FAA9-1FAAE 1FAE7'
    ),
    'symbols': (
        '23-2A 30-2049 2122-21AA 23CF-23EF 23F8-23FA 24C2 25AA-25AB 25B6-25C0 25FB-25FE 2611 2622-2638 2640-2653 '
        '267B-267F 2695 269B-26A0 26A7-26AB 26CE 26D4 2705 2714-2721 2733-2734 2747-2757 2795-2B07 2B1B-2B1C 2B55 '
        '3030-3299 1F170-1F19A 1F201-1F251 1F3A6 1F3E7 1F4A0 1F4B1-1F4B2 1F4DB 1F4F3-1F4F6 1F500-1F506 1F518-1F524 '
        '1F52F-1F549 1F54E 1F6AB 1F6AD-1F6B1 1F6B3 1F6B7-1F6BC 1F6BE 1F6C2-1F6C5 1F6D0 1F6DC 1F7E0-1F7F0 1FAAF 1FADF'
    ),
    'flags': '1F1E6-1F1FF 1F38C 1F3C1 1F3F3-1F3F4 1F6A9',
}
#: One in this many base emoji is held out for validation.
HELD_OUT = 5

SKIN_TONES = frozenset(range(0x1F3FB, 0x1F400))
_VARIATION_SELECTOR, _JOINER = 0xFE0F, 0x200D
_REGIONAL_INDICATORS = range(0x1F1E6, 0x1F200)
_PERSON, _CHILD, _HANDSHAKE = 0x1F9D1, 0x1F9D2, (0x1FAF1, 0x1FAF2)
#: Code points that, after the first one, only mark a variant: skin tones, hair, gender signs, direction and colours.
_MODIFIERS = SKIN_TONES | {*range(0x1F9B0, 0x1F9B4), 0x2640, 0x2642, 0x27A1, *range(0x1F7E5, 0x1F7EC), 0x2B1B, 0x2B1C}
#: Code point of a man or woman, boy or girl, couple or family -> the code points of the neutral form that replaces it.
_SAME = {
    0x1F468: (_PERSON,),
    0x1F469: (_PERSON,),
    0x1F466: (_CHILD,),
    0x1F467: (_CHILD,),
    0x1F91D: _HANDSHAKE,
    0x1F46A: (_PERSON, _CHILD),  # family
    0x1F46B: (_PERSON, *_HANDSHAKE),  # holding hands
    0x1F46C: (_PERSON, *_HANDSHAKE),
    0x1F46D: (_PERSON, *_HANDSHAKE),
    0x1F46F: (_PERSON, 0x1F430),  # bunny ears
    0x1F93C: (_PERSON, 0x1FAEF),  # wrestling
    0x1F48F: (_PERSON, 0x2764, 0x1F48B),  # kiss
    0x1F491: (_PERSON, 0x2764),  # couple with heart
    0x1F474: (0x1F9D3,),  # older person
    0x1F475: (0x1F9D3,),
    0x1F478: (0x1FAC5,),  # person with crown
    0x1F934: (0x1FAC5,),
    0x1F930: (0x1FAC4,),  # pregnant person
    0x1FAC3: (0x1FAC4,),
    0x1F385: (_PERSON, 0x1F384),  # Father, Mother and Mx Christmas
    0x1F936: (_PERSON, 0x1F384),
}
#: Flags that look alike: territories with their state's flag, and states whose flags differ only in shade or shape.
_SAME_FLAGS = {'BV': 'NO', 'CP': 'FR', 'EA': 'ES', 'HM': 'AU', 'ID': 'MC', 'MF': 'FR', 'SJ': 'NO', 'TD': 'RO', 'UM': 'US'}


def emoji_class(code_points: tuple[int, ...]) -> str | None:
    """Class of an emoji, by its first code point; None if it is in no class, such as one of the two letters of a flag."""
    first = code_points[0]
    if first in _REGIONAL_INDICATORS and len(code_points) == 1:
        return None
    row = bisect.bisect_right(_STARTS, first) - 1
    return _RANGES[row][2] if row >= 0 and first <= _RANGES[row][1] else None


def base_emoji(code_points: tuple[int, ...]) -> tuple[int, ...]:
    """Code points shared by all variants of an emoji: by skin, hair, gender, direction, colour, family, or equal flags."""
    plain = [point for point in code_points if point not in (_VARIATION_SELECTOR, _JOINER)]
    letters = ''.join(chr(point - _REGIONAL_INDICATORS[0] + ord('A')) for point in plain if point in _REGIONAL_INDICATORS)
    if letters in _SAME_FLAGS:
        return tuple(ord(letter) - ord('A') + _REGIONAL_INDICATORS[0] for letter in _SAME_FLAGS[letters])
    plain = [plain[0], *(point for point in plain[1:] if point not in _MODIFIERS)]
    return tuple(dict.fromkeys(same for point in plain for same in _SAME.get(point, (point,))))


def is_held_out(code_points: tuple[int, ...]) -> bool:
    """Whether an emoji and all its variants are held out for validation; depends only on a hash of the base emoji."""
    name = '-'.join(f'{point:X}' for point in base_emoji(code_points))
    return int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT == 0


def _ranges() -> list[tuple[int, int, str]]:
    ranges = []
    for name, text in EMOJI_CLASSES.items():
        for part in text.split():
            first, _, last = part.partition('-')
            ranges.append((int(first, 16), int(last or first, 16), name))
    return sorted(ranges)


_RANGES = _ranges()
_STARTS = [first for first, _, _ in _RANGES]
