#include "orchestrator/render.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <wchar.h>

#define REPLACEMENT "\xef\xbf\xbd" /* U+FFFD */
#define ELLIPSIS "\xe2\x80\xa6"    /* U+2026 */

struct render_terminal render_terminal(int fd)
{
    struct render_terminal made = {.columns = 80, .rows = 24};
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    made.tty = isatty(fd) == 1;
    made.live = made.tty && term != NULL && *term != '\0' && strcmp(term, "dumb") != 0;
    made.color = made.live && (no_color == NULL || *no_color == '\0');
    struct winsize size;
    if (made.tty && ioctl(fd, TIOCGWINSZ, &size) == 0) {
        made.columns = size.ws_col > 0 ? size.ws_col : made.columns;
        made.rows = size.ws_row > 0 ? size.ws_row : made.rows;
    }
    return made;
}

/* --- characters ----------------------------------------------------------------------------- */

/* Decodes one character of UTF-8 (RFC 3629). Returns its bytes; 0 when they are none, and then one
 * byte is to be skipped. */
static size_t decode(const unsigned char *at, size_t len, uint32_t *ret)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = at[0] < 0x80       ? 1
               : at[0] >> 5 == 6  ? 2
               : at[0] >> 4 == 14 ? 3
               : at[0] >> 3 == 30 ? 4
                                  : 0;
    if (n == 0 || n > len)
        return 0;
    uint32_t c = n == 1 ? at[0] : at[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if (at[i] >> 6 != 2)
            return 0;
        c = c << 6 | (at[i] & 0x3f);
    }
    if (c < least[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return n;
}

size_t render_utf8_valid(const char *text, size_t len)
{
    size_t i = 0;
    for (size_t n = 1; i < len && n > 0; i += n) {
        uint32_t c;
        n = decode((const unsigned char *)text + i, len - i, &c);
    }
    return i;
}

/* Controls, and the invisible marks that reorder or hide what a person reads. */
static bool harmful(uint32_t c)
{
    return (c < 0x20 && c != '\n' && c != '\t') || (c >= 0x7f && c < 0xa0) ||
           (c >= 0x200e && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069) || c == 0x061c || c == 0xfeff ||
           (c >= 0xe0000 && c <= 0xe007f);
}

/* Bytes of an escape sequence (ECMA-48) that starts at text: CSI, OSC and other strings, or ESC
 * with its intermediate and final bytes. */
static size_t escape_len(const char *text, size_t len)
{
    size_t i = 1;
    if (len < 2)
        return len;
    if (text[1] == '[') {
        for (i = 2; i < len && text[i] >= 0x20 && text[i] <= 0x3f; i++)
            ;
        return i < len && text[i] >= 0x40 && text[i] <= 0x7e ? i + 1 : i;
    }
    if (text[1] != 0 && strchr("]PX^_", text[1]) != NULL) {
        /* A string without its end would hide the rest of the text: then only its start goes. */
        for (i = 2; i < len && text[i] != '\n'; i++) {
            if (text[i] == '\a')
                return i + 1;
            if (text[i] == '\x1b' && i + 1 < len && text[i + 1] == '\\')
                return i + 2;
        }
        return 2;
    }
    while (i < len && text[i] >= 0x20 && text[i] <= 0x2f)
        i++;
    return i < len && text[i] >= 0x30 && text[i] <= 0x7e ? i + 1 : i;
}

void render_safe(struct buf *out, const char *text, size_t len, bool one_line)
{
    size_t i = 0;
    while (i < len) {
        if (text[i] == '\x1b') {
            i += escape_len(text + i, len - i);
            continue;
        }
        if (text[i] == '\r' && (one_line || (i + 1 < len && text[i + 1] == '\n'))) {
            i++;
            continue;
        }
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)text + i, len - i, &c);
        if (n == 0 || harmful(c))
            buf_add_str(out, REPLACEMENT);
        else if (one_line && (c == '\n' || c == '\t'))
            buf_add_char(out, ' ');
        else
            buf_add(out, text + i, n);
        i += n > 0 ? n : 1;
    }
}

static int char_width(uint32_t c)
{
    static bool ready;
    if (!ready) {
        setlocale(LC_CTYPE, "C.UTF-8"); /* wcwidth() knows nothing in the C locale */
        ready = true;
    }
    int width = wcwidth((wchar_t)c);
    return width >= 0 ? width : 1;
}

int render_width(const char *text, size_t len)
{
    int width = 0;
    for (size_t i = 0; i < len;) {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)text + i, len - i, &c);
        width += n > 0 ? char_width(c) : 1;
        i += n > 0 ? n : 1;
    }
    return width;
}

int render_cut(struct buf *out, const char *text, size_t len, int columns)
{
    /* A character has at most 4 bytes, and marks without width may follow each: far more than what
     * fits need not be looked at. */
    size_t most = (size_t)(columns > 0 ? columns : 0) * 64 + 256;
    struct buf safe = {0};
    render_safe(&safe, text, len < most ? len : most, true);
    int used = 0, room = columns > 0 ? columns : 0;
    size_t kept = 0, cut = 0;
    int cut_used = 0;
    while (kept < safe.len) {
        uint32_t c = 0;
        size_t n = decode((const unsigned char *)safe.data + kept, safe.len - kept, &c);
        int width = char_width(c);
        if (used + width > room)
            break;
        used += width;
        kept += n;
        if (used <= room - 1) {
            cut = kept;
            cut_used = used;
        }
    }
    bool whole = kept == safe.len;
    buf_add(out, safe.data, whole ? kept : cut);
    if (!whole && room > 0) {
        buf_add_str(out, ELLIPSIS);
        cut_used++;
    }
    buf_release(&safe);
    return whole ? used : cut_used;
}

void render_fit(struct buf *out, const char *text, size_t len, int columns)
{
    for (int used = render_cut(out, text, len, columns); used < columns; used++)
        buf_add_char(out, ' ');
}

/* --- numbers -------------------------------------------------------------------------------- */

void render_duration(struct buf *out, double ms)
{
    if (!(ms >= 0) || ms > 1e15) {
        buf_add_char(out, '-');
        return;
    }
    int64_t seconds = (int64_t)(ms / 1000 + 0.5);
    if (ms < 10)
        buf_printf(out, "%.1f ms", ms);
    else if (ms < 999.5)
        buf_printf(out, "%.0f ms", ms);
    else if (ms < 59950)
        buf_printf(out, "%.1f s", ms / 1000);
    else if (seconds < 3600)
        buf_printf(out, "%d min %02d s", (int)(seconds / 60), (int)(seconds % 60));
    else
        buf_printf(out, "%lld h %02d min", (long long)(seconds / 3600), (int)(seconds % 3600 / 60));
}

void render_bytes(struct buf *out, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double value = (double)bytes;
    size_t unit = 0;
    while (value >= 1024 && unit + 1 < sizeof units / sizeof *units) {
        value /= 1024;
        unit++;
    }
    buf_printf(out, unit == 0 || value >= 10 ? "%.0f %s" : "%.1f %s", value, units[unit]);
}

void render_time(struct buf *out, int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm local;
    char text[32];
    if (wall_ms <= 0 || localtime_r(&seconds, &local) == NULL ||
        strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &local) == 0)
        buf_add_char(out, '-');
    else
        buf_add_str(out, text);
}

void render_model_text(FILE *stream, const char *text, size_t len)
{
    if (isatty(fileno(stream)) == 1) {
        struct buf safe = {0};
        render_safe(&safe, text, len, false);
        fwrite(safe.data, 1, safe.len, stream);
        buf_release(&safe);
    } else {
        fwrite(text, 1, len, stream);
    }
    if (len == 0 || text[len - 1] != '\n')
        fputc('\n', stream);
}
