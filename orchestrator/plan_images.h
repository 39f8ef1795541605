/* Images that go with a prompt: from files, as base64, or by their address. */
#ifndef ORCHESTRATOR_PLAN_IMAGES_H
#define ORCHESTRATOR_PLAN_IMAGES_H

#include <stddef.h>

#include "common/err.h"
#include "common/json.h"

#define PLAN_IMAGES_MAX 32                              /* of one subtask */
#define PLAN_IMAGES_MAX_BYTES ((size_t)8 * 1024 * 1024) /* of all its files together */

/* All zero is empty. */
struct plan_images {
    json_t *list; /* of {url} or {media_type, data: base64}; NULL: none */
    size_t bytes; /* of files so far */
};

/* where: an http:// or https:// address, which is not looked at, or a file; a relative one is in
 * the folder (NULL: the working directory). A file must be PNG, JPEG, GIF or WebP by its first
 * bytes, whatever it is called. 0; -EINVAL with a sentence. */
int plan_images_add(struct plan_images *images, const char *where, const char *folder,
                    struct err *err);
/* As the record `work` has it: a JSON array; "" for none. The caller frees. Leaves it empty. */
char *plan_images_take(struct plan_images *images);
void plan_images_release(struct plan_images *images);

/* image/png and so on, by the first bytes; NULL: none of those. */
const char *plan_image_type(const char *data, size_t len);

#endif
