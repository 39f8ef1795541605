/* Whether a question asks for what is new: by the words that people use for it. */
#include <string.h>
#include <time.h>

#include "workers/search_engine.h"
#include "workers/search_words.h"
#include "workers/utf8.h"

#define YEARS_AHEAD 10 /* a number beyond is no year that anybody asks about */
#define QUOTE_MAX 400  /* bytes of a quotation */

/* --- folding ----------------------------------------------------------------------------------
 */

/* The lower case of a character, a blank for punctuation beyond ASCII. Latin, Greek, Cyrillic. */
static unsigned fold(unsigned c)
{
    if (c == 0x2019 || c == 0x2bc)
        return '\'';
    if ((c >= 0x2000 && c <= 0x206f) || (c >= 0x3000 && c <= 0x303f) || (c >= 0xa0 && c <= 0xbf) ||
        (c >= 0xff00 && c <= 0xff20) || c == 0x61f || c == 0x60c || c == 0x964)
        return ' ';
    if ((c >= 'A' && c <= 'Z') || (c >= 0xc0 && c <= 0xde && c != 0xd7) ||
        (c >= 0x391 && c <= 0x3a9) || (c >= 0x410 && c <= 0x42f))
        return c + 0x20;
    if (c >= 0x400 && c <= 0x40f)
        return c + 0x50;
    if (c == 0x130)
        return 'i';
    if (c >= 0x100 && c <= 0x17f && c != 0x131)
        return (c >= 0x139 && c <= 0x148) || c >= 0x179 ? c + (c & 1) : c | 1;
    return c;
}

static unsigned decode(const char *text, size_t sequence)
{
    const unsigned char *at = (const unsigned char *)text;
    static const unsigned char masks[] = {0, 0x7f, 0x1f, 0x0f, 0x07};
    unsigned c = at[0] & masks[sequence];
    for (size_t i = 1; i < sequence; i++)
        c = c << 6 | (at[i] & 0x3fu);
    return c;
}

static void encode(struct buf *out, unsigned c)
{
    if (c < 0x80) {
        buf_add_char(out, (char)c);
    } else if (c < 0x800) {
        buf_add_char(out, (char)(0xc0 | c >> 6));
        buf_add_char(out, (char)(0x80 | (c & 0x3f)));
    }
}

/* Behind a quotation or a span of code that begins at `at` and ends on its line; else `at`. */
static size_t skip_quotation(const char *text, size_t len, size_t at)
{
    static const struct {
        const char *open, *close;
    } quotes[] = {{"`", "`"}, {"\"", "\""}, {"“", "”"}, {"„", "“"}, {"«", "»"}, {"「", "」"}};
    for (size_t i = 0; i < sizeof quotes / sizeof *quotes; i++) {
        size_t open = strlen(quotes[i].open), close = strlen(quotes[i].close);
        if (len - at < open || memcmp(text + at, quotes[i].open, open) != 0)
            continue;
        size_t room = len - at - open < QUOTE_MAX ? len - at - open : QUOTE_MAX;
        const char *newline = memchr(text + at + open, '\n', room);
        room = newline != NULL ? (size_t)(newline - (text + at + open)) : room;
        const char *end = memmem(text + at + open, room, quotes[i].close, close);
        return end != NULL ? (size_t)(end - text) + close : at;
    }
    return at;
}

/* Folded text, words one blank apart and around them one, without what is quoted. */
static void fold_text(struct buf *out, const char *text, size_t len)
{
    buf_add_char(out, ' ');
    for (size_t at = 0; at < len;) {
        size_t behind = skip_quotation(text, len, at);
        size_t sequence = utf8_sequence(text + at, len - at);
        unsigned c = behind > at || sequence == 0 ? ' ' : decode(text + at, sequence);
        unsigned folded = c <= ' ' || c == 0x7f ? ' ' : fold(c);
        if (folded == ' ') {
            if (out->len > 0 && out->data[out->len - 1] != ' ')
                buf_add_char(out, ' ');
        } else if (folded < 0x800) {
            encode(out, folded);
        } else {
            buf_add(out, text + at, sequence);
        }
        at = behind > at ? behind : at + (sequence > 0 ? sequence : 1);
    }
    buf_add_char(out, ' ');
}

/* --- looking ----------------------------------------------------------------------------------
 */

/* Scripts that put no blanks between words: nothing in them ends a word of another script. */
static bool is_dense(const char *text, size_t at)
{
    while (at > 0 && ((unsigned char)text[at] & 0xc0) == 0x80)
        at--;
    return (unsigned char)text[at] >= 0xe3;
}

static bool is_word(const char *text, size_t at)
{
    char c = text[at];
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' ||
           ((unsigned char)c >= 0x80 && !is_dense(text, at));
}

/* Length of the phrase when it stands at `at`, where a word begins; 0 when it doesn't. */
static size_t phrase_at(const char *text, size_t len, size_t at, const char *phrase)
{
    size_t n = strlen(phrase);
    bool open = phrase[n - 1] == '*' || (unsigned char)phrase[0] >= 0xe3;
    n -= phrase[n - 1] == '*';
    if (len - at < n || memcmp(text + at, phrase, n) != 0)
        return 0;
    return open || at + n == len || !is_word(text, at + n) ? n : 0;
}

/* Whether the next word behind `at` is one of the list. */
static bool followed_by(const char *text, size_t len, size_t at, const struct search_words *list)
{
    while (at < len && (text[at] == ' ' || text[at] == '-'))
        at++;
    for (size_t i = 0; i < list->n; i++)
        if (at < len && phrase_at(text, len, at, list->words[i]) > 0)
            return true;
    return false;
}

static bool preceded_by(const char *text, size_t at, const struct search_words *list)
{
    while (at > 0 && (text[at - 1] == ' ' || text[at - 1] == ':'))
        at--;
    for (size_t i = 0; i < list->n; i++) {
        size_t word = strlen(list->words[i]);
        if (at > word && memcmp(text + at - word, list->words[i], word) == 0 &&
            !is_word(text, at - word - 1))
            return true;
    }
    return false;
}

static bool is_harmless(const char *text, size_t len, size_t at, size_t n)
{
    static const char word[] = "current";
    if (n != sizeof word - 1 || memcmp(text + at, word, n) != 0)
        return false;
    return followed_by(text, len, at + n, &search_current_nouns) ||
           preceded_by(text, at, &search_current_kinds);
}

static bool is_number_part(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || strchr("_.$#/+*=%", c) != NULL;
}

static bool year_at(const char *text, size_t len, size_t at, int year)
{
    int number = 0;
    if (len - at < 5 || (at > 0 && (is_number_part(text[at - 1]) || text[at - 1] == '-')))
        return false;
    for (size_t i = 0; i < 4; i++) {
        if (text[at + i] < '0' || text[at + i] > '9')
            return false;
        number = number * 10 + text[at + i] - '0';
    }
    char next = text[at + 4];
    bool decimal = (next == '.' || next == ',' || next == ':') && at + 5 < len &&
                   text[at + 5] >= '0' && text[at + 5] <= '9';
    if (number < year || number > year + YEARS_AHEAD || decimal ||
        (next != '.' && is_number_part(next)))
        return false;
    return !followed_by(text, len, at + 4, &search_not_years_after) &&
           !preceded_by(text, at, &search_not_years_before);
}

static bool asks_at(const char *text, size_t len, size_t at, int year)
{
    bool begins = at == 0 || !is_word(text, at - 1);
    if (!begins && (unsigned char)text[at] < 0xe3)
        return false;
    if (begins && year_at(text, len, at, year))
        return true;
    for (size_t i = 0; i < search_phrases.n; i++) {
        const char *phrase = search_phrases.words[i];
        size_t n = phrase[0] == text[at] ? phrase_at(text, len, at, phrase) : 0;
        if (n > 0 && !is_harmless(text, len, at, n))
            return true;
    }
    return false;
}

bool search_asks_for_news(const char *text, size_t len, int64_t wall_ms)
{
    struct buf folded = {0};
    time_t now = (time_t)(wall_ms / 1000);
    struct tm tm = {0};
    bool asks = false;
    gmtime_r(&now, &tm);
    fold_text(&folded, text, len);
    for (size_t at = 0; !folded.failed && !asks && at < folded.len; at++)
        asks = folded.data[at] != ' ' && ((unsigned char)folded.data[at] & 0xc0) != 0x80 &&
               asks_at(folded.data, folded.len, at, tm.tm_year + 1900);
    buf_release(&folded);
    return asks;
}

bool search_wanted(const struct config_provider *settings, const char *prompt, size_t len,
                   int64_t wall_ms)
{
    const char *when = settings->search != NULL ? settings->search : "auto";
    struct buf text = {0};
    if (strcmp(when, "auto") != 0)
        return strcmp(when, "always") == 0;
    search_question(&text, prompt, len);
    bool wanted =
        !text.failed && text.len > 0 && search_asks_for_news(text.data, text.len, wall_ms);
    buf_release(&text);
    return wanted;
}
