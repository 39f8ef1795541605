#include "workers/search_words.h"

#define WORDS(array)                                                                               \
    {                                                                                              \
        array, sizeof(array) / sizeof *(array)                                                     \
    }

/* clang-format off */
static const char *const phrases[] = {
    /* English */
    "latest", "newest", "most recent", "recent news", "recent developments", "recently", "today",
    "tonight", "yesterday", "this week", "this weekend", "this month", "this quarter",
    "this year", "last week", "last month", "next week", "next month", "right now",
    "at the moment", "these days", "nowadays", "currently", "current", "up to date", "up-to-date",
    "as of now", "news", "headlines", "breaking", "weather", "price of", "prices of",
    "stock price*", "share price*", "gas price*", "oil price*", "bitcoin price", "exchange rate*",
    "interest rates", "how much does it cost", "who won", "who is winning", "final score",
    "live score*", "standings", "election result*", "release date*", "release notes",
    "new release*", "just released", "was released", "been released", "just announced",
    "was announced", "been announced", "search the web", "search the internet", "search online",
    "web search", "look it up", "look up online",
    /* German */
    "heute", "heutige*", "gestern", "aktuell*", "neueste*", "neuste*", "nachrichten",
    "diese woche", "dieser woche", "diesen monat", "diesem monat", "dieses jahr", "diesem jahr",
    "letzte woche", "derzeit", "momentan", "zurzeit", "preis von", "preise von", "wechselkurs*",
    "aktienkurs*", "wetter", "wer hat gewonnen", "wer gewann", "suche im internet",
    "suche im web",
    /* French */
    "aujourd'hui", "hier soir", "actuel", "actuels", "actuelle", "actuelles", "actuellement",
    "actualité", "actualités", "dernières nouvelles", "dernière version", "plus récent*",
    "cette semaine", "ce mois", "cette année", "en ce moment", "prix de", "prix du", "météo",
    "qui a gagné", "taux de change",
    /* Spanish */
    "hoy", "ayer", "actualmente", "noticias", "últimas noticias", "última versión",
    "más reciente*", "esta semana", "este mes", "este año", "ahora mismo", "precio de",
    "precio del", "quién ganó", "tipo de cambio", "en la actualidad",
    /* Portuguese */
    "hoje", "ontem", "atual", "atuais", "atualmente", "notícias", "última versão",
    "mais recente*", "este mês", "este ano", "preço de", "preço do", "preço da", "quem ganhou",
    "quem venceu",
    /* Italian */
    "oggi", "ieri", "attuale", "attuali", "attualmente", "notizie", "ultima versione",
    "più recente", "più recenti", "questa settimana", "questo mese", "quest'anno", "prezzo di",
    "prezzo del", "chi ha vinto",
    /* Dutch, Polish, Turkish */
    "vandaag", "gisteren", "huidige", "nieuws", "nieuwste", "deze week", "deze maand", "dit jaar",
    "prijs van", "wie won", "dzisiaj", "dziś", "wczoraj", "aktualn*", "wiadomości", "najnowsz*",
    "w tym tygodniu", "w tym roku", "kto wygrał", "cena", "bugün", "dün", "güncel", "son dakika",
    "haberler*", "bu hafta", "bu yıl", "kim kazandı",
    /* Russian, Ukrainian */
    "сегодня", "вчера", "сейчас", "новости", "последние", "последняя версия", "текущ*",
    "актуальн*", "на этой неделе", "в этом году", "кто выиграл", "кто победил", "цена",
    "курс доллара", "погода", "сьогодні", "новини", "зараз",
    /* Arabic, Hindi */
    "اليوم*", "أخبار*", "أحدث*", "آخر الأخبار*", "حاليا*", "आज*", "ताज़ा*", "समाचार*",
    /* Chinese, Japanese, Korean */
    "最新", "今天", "今日", "昨天", "昨日", "本周", "这周", "本月", "今年", "当前", "目前",
    "现在", "新闻", "天气", "股价", "汇率", "谁赢了", "當前", "現在", "新聞", "天氣", "股價",
    "匯率", "今週", "今月", "ニュース", "天気", "速報", "株価", "為替", "최신", "오늘", "어제",
    "이번 주", "이번 달", "올해", "현재", "뉴스", "날씨", "주가", "환율",
};

static const char *const current_nouns[] = {
    "account", "branch", "buffer", "bytes", "class", "code", "codebase", "configuration",
    "context", "cursor", "density", "design", "dir", "directory", "draft", "element", "file",
    "flow", "folder", "frame", "function", "implementation", "index", "item", "iteration", "line",
    "loop", "method", "mode", "module", "node", "object", "page", "path", "plan", "pointer",
    "position", "process", "project", "prompt", "repository", "row", "scope", "selection",
    "session", "source", "stack", "state", "step", "subtask", "tab", "task", "text", "thread",
    "time step", "token", "user", "value", "voltage", "window", "working", "workspace",
};

static const char *const current_kinds[] = {
    "alternating", "direct", "eddy", "electric", "electrical", "ocean", "the electric",
};

static const char *const not_years_before[] = {
    "rfc", "port", "line", "iso", "error", "code", "page", "number", "no", "first", "exactly",
    "about", "size", "top", "step", "id", "seed",
};

static const char *const not_years_after[] = {
    "bytes", "bits", "kb", "mb", "gb", "tb", "px", "pixels", "ms", "items", "rows", "lines",
    "words", "tokens", "characters", "points", "users", "requests", "times", "people", "elements",
    "entries", "files", "usd", "eur", "dollars", "euros", "kg", "km", "m", "meters", "steps",
};

/* clang-format on */

const struct search_words search_phrases = WORDS(phrases);
const struct search_words search_current_nouns = WORDS(current_nouns);
const struct search_words search_current_kinds = WORDS(current_kinds);
const struct search_words search_not_years_before = WORDS(not_years_before);
const struct search_words search_not_years_after = WORDS(not_years_after);
