"""What things in the rehearsal city are called, in English, Russian and Kazakh. All of it is invented."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["ARCS", "AVENUES", "DISTRICTS", "HIGHWAYS", "RINGS", "SECTIONS", "SITES", "Names", "joined"]


class Names(NamedTuple):
    """One name in the three languages of the city."""

    en: str
    ru: str
    kk: str


def joined(first: Names, second: Names) -> Names:
    """Put two names together, language by language."""
    return Names(*(f"{a}, {b}" for a, b in zip(first, second, strict=True)))


DISTRICTS = {
    "alan": Names("Main Square", "Главная площадь", "Бас Алаң"),
    "bilim": Names("Bilim Campus", "Кампус Билим", "Білім"),
    "zhibek": Names("Zhibek", "Жибек", "Жібек"),
    "samruq": Names("Samruq", "Самрук", "Самұрық"),
    "almabaq": Names("Apple Orchard", "Яблоневый Сад", "Алмабақ"),
    "kokzhiek": Names("Kokzhiek", "Кокжиек", "Көкжиек"),
    "suzhaga": Names("Lakeside", "Приозёрный", "Сужаға"),
    "onerkasip": Names("Foundry Park", "Литейный", "Өнеркәсіп"),
    "tauqaqpa": Names("Mountain Gate", "Горные Ворота", "Тауқақпа"),
    "zhanadala": Names("New Steppe", "Новая Степь", "Жаңадала"),
}

AVENUES = {
    "tulpar": Names("Tulpar Avenue", "проспект Тулпар", "Тұлпар даңғылы"),
    "baiterek": Names("Baiterek Avenue", "проспект Байтерек", "Бәйтерек даңғылы"),
    "qyran": Names("Qyran Avenue", "проспект Кыран", "Қыран даңғылы"),
    "zhuldyz": Names("Zhuldyz Avenue", "проспект Жулдыз", "Жұлдыз даңғылы"),
    "aqqu": Names("Aqqu Street", "улица Акку", "Аққу көшесі"),
    "shagala": Names("Shagala Street", "улица Шагала", "Шағала көшесі"),
    "qyzgaldaq": Names("Qyzgaldaq Street", "улица Кызгалдак", "Қызғалдақ көшесі"),
    "arsha": Names("Arsha Street", "улица Арша", "Арша көшесі"),
    "karagash": Names("Qaragash Street", "улица Карагаш", "Қарағаш көшесі"),
}

SECTIONS = (
    Names("inner section", "внутренний участок", "ішкі бөлігі"),
    Names("middle section", "средний участок", "орта бөлігі"),
    Names("outer section", "внешний участок", "сыртқы бөлігі"),
)

RINGS = {
    "garden": Names("Garden Ring", "Садовое кольцо", "Бау-бақша айналмасы"),
    "middle": Names("Middle Ring", "Среднее кольцо", "Орта айналма"),
    "orbital": Names("Orbital", "Большая окружная", "Үлкен айналма"),
}

ARCS = (
    Names("east", "восток", "шығыс"),
    Names("north-east", "северо-восток", "солтүстік-шығыс"),
    Names("north", "север", "солтүстік"),
    Names("north-west", "северо-запад", "солтүстік-батыс"),
    Names("west", "запад", "батыс"),
    Names("south-west", "юго-запад", "оңтүстік-батыс"),
    Names("south", "юг", "оңтүстік"),
    Names("south-east", "юго-восток", "оңтүстік-шығыс"),
)

HIGHWAYS = {
    "lake": Names("Lake Highway", "Озёрное шоссе", "Көл тас жолы"),
    "steppe": Names("Steppe Highway", "Степное шоссе", "Дала тас жолы"),
    "mountain": Names("Mountain Highway", "Горное шоссе", "Тау тас жолы"),
}

SITES = {
    "city-hall": Names("City Hall", "Акимат", "Әкімдік"),
    "central-station": Names("Central Station", "Центральный вокзал", "Орталық вокзал"),
    "university": Names("University", "Университет", "Университет"),
    "hospital": Names("City Hospital", "Городская больница", "Қалалық аурухана"),
    "heat-plant": Names("Heat and Power Plant", "ТЭЦ", "ЖЭО"),
    "waterworks": Names("Waterworks", "Водоканал", "Су құбыры"),
    "stadium": Names("Stadium", "Стадион", "Стадион"),
    "tech-park": Names("Technology Park", "Технопарк", "Технопарк"),
}
