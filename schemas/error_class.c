#include "schemas/error_class.h"

#include <string.h>

static const struct {
    const char *name;
    enum error_action action;
    const char *meaning;
} classes[] = {
#define X(constant, name, action, meaning) {name, action, meaning},
    ERROR_CLASSES(X)
#undef X
};

const char *error_class_name(enum error_class class_)
{
    return class_ < CLASS_COUNT ? classes[class_].name : "?";
}

enum error_class error_class_parse(const char *name)
{
    for (unsigned i = 0; i < CLASS_COUNT; i++)
        if (strcmp(classes[i].name, name) == 0)
            return (enum error_class)i;
    return CLASS_COUNT;
}

enum error_action error_class_action(enum error_class class_)
{
    return class_ < CLASS_COUNT ? classes[class_].action : ERROR_DEAD;
}

const char *error_class_meaning(enum error_class class_)
{
    return class_ < CLASS_COUNT ? classes[class_].meaning : "unknown";
}
