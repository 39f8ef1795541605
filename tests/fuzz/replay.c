/* Feeds a fuzz target every file of its corpus (the directory in ORCH_CORPUS), whole and cut short
 * at every byte. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CUT_MAX 4096 /* longer files are cut at so many places only */

/* A copy of exactly that size, so that a sanitizer sees who reads beyond it. */
static void run(const uint8_t *data, size_t size)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    if (copy == NULL)
        abort();
    memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
}

static void replay(const char *path)
{
    static uint8_t data[1 << 20];
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        exit(1);
    }
    size_t size = fread(data, 1, sizeof data, file);
    fclose(file);
    run(data, size);
    for (size_t cut = 0; cut < size && cut < CUT_MAX; cut++)
        run(data, cut);
}

int main(void)
{
    const char *corpus = getenv("ORCH_CORPUS");
    DIR *dir = corpus != NULL ? opendir(corpus) : NULL;
    if (dir == NULL) {
        fprintf(stderr, "ORCH_CORPUS names no directory: %s\n",
                corpus != NULL ? corpus : "(unset)");
        return 1;
    }
    unsigned count = 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char path[4096];
        if (entry->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", corpus, entry->d_name);
        replay(path);
        count++;
    }
    closedir(dir);
    printf("%u files\n", count);
    return count > 0 ? 0 : 1; /* a suite that examines nothing is no suite */
}
