"""Java's time zone abbreviations and their offsets."""

from datetime import timedelta

NAMES_BY_OFFSET = {
    -660: "NUT SST",
    -600: "CKT HAST HST TAHT",
    -570: "MART",
    -540: "AKST GAMT HADT",
    -480: "AKDT PST",
    -420: "MST PDT",
    -360: "CST EAST GALT MDT",
    -300: "ACT CDT COT EASST ECT EST PET",
    -270: "VET",
    -240: "AMT AST BOT CLT EDT GYT PYT VET",
    -210: "NST",
    -180: "ADT AMST ART BRT CLST CLT FKT GFT PMST PYST PYT ROTT SRT UYT WGT",
    -150: "NDT",
    -120: "BRST FNT GST PMDT UYST WGST WGT",
    -60: "AZOT CVT EGT WGST",
    0: "AZOST EGST GMT UTC WET",
    60: "BST CET IST MET WAT WEST",
    120: "CAT CEST EET IST MEST SAST",
    180: "AST EAT EEST IDT MSK SYOT TRST TRT",
    210: "IRST",
    240: "AMT AZT GET GST MUT RET SAMT SCT",
    270: "AFT IRDT",
    300: "ALMT AQTT AZST MAWT MVT ORAT PKT QOST QYZT TFT TJT TMT UZT VOST YEKT",
    330: "IST",
    345: "NPT",
    360: "ALMT BDT BTT IOT KGT NOVT OMST QOST QYZT XJT YEKT",
    390: "CCT MMT",
    420: "CXT DAVT HOVT ICT KRAT NOVT OMST VOST WIB",
    480: "AWST BNT CHOT HKT HOVST IRKT KRAT MYT PST SGT ULAT WITA WST YAKT",
    525: "ACWST",
    540: "CHOST IRKT JST KST PWT TLT ULAST WIT YAKT",
    570: "ACST",
    600: "AEST CHUT ChST DDUT MAGT PGT SAKT VLAT YAKT",
    630: "ACDT LHST",
    660: "AEDT KOST LHDT MAGT NCT NFT PONT SAKT SBT SRET VLAT VUT",
    690: "NFT",
    720: "ANAT FJT GILT MAGT MHT NFST NRT NZST PETT SRET TVT WAKT WFT",
    765: "CHAST",
    780: "FJST NZDT PHOT TKT TOT WSST",
    825: "CHADT",
    840: "LINT TOST WSDT",
}
"""The abbreviations that JDK 11 to 21 print, by minutes east of UTC.

Python has no abbreviations for many of these zones. Source: the output of `Date.toString()` on JDK
17 in all its zones, 2014 to 2026. For an abbreviation with several meanings, only the offsets of
the most populous places are listed. WST (+08:00) is not in that output: JVMs with time zone data
older than 2014 print it for Perth.
"""

OFFSETS: dict[str, set[timedelta]] = {}
for _minutes, _names in NAMES_BY_OFFSET.items():
    for _name in _names.split():
        OFFSETS.setdefault(_name, set()).add(timedelta(minutes=_minutes))

AMBIGUOUS_OFFSETS = {
    "EST": {timedelta(hours=10), timedelta(hours=11)},
    "CST": {timedelta(hours=9, minutes=30), timedelta(hours=10, minutes=30)},
}
"""A JVM with time zone data older than 2014 prints these for eastern and central Australia, in
summer and winter alike."""
