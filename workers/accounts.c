#include "workers/accounts.h"

#include <stdlib.h>

#include "schemas/mem.h"

struct account {
    bool introduced;
    int64_t credit; /* granted and not yet used */
    int64_t owed;   /* to be granted */
};

struct accounts {
    int n;
    struct account list[];
};

struct accounts *accounts_new(int n_brokers)
{
    struct accounts *accounts =
        mem_must_zalloc(sizeof *accounts + (size_t)n_brokers * sizeof *accounts->list);
    accounts->n = n_brokers;
    return accounts;
}

void accounts_free(struct accounts **accounts)
{
    free(*accounts);
    *accounts = NULL;
}

void accounts_introduce(struct accounts *accounts, int broker)
{
    accounts->list[broker].introduced = true;
}

void accounts_lose(struct accounts *accounts, int broker)
{
    accounts->list[broker] = (struct account){0};
}

bool accounts_introduced(const struct accounts *accounts, int broker)
{
    return accounts->list[broker].introduced;
}

/* Rounded up: n parts are never less than the whole. */
static int64_t part_of(int64_t places, int64_t n)
{
    return places > 0 ? places / n + (places % n > 0) : 0;
}

void accounts_divide(struct accounts *accounts, int64_t free_places, int64_t most)
{
    int64_t n = 0;
    for (int i = 0; i < accounts->n; i++)
        n += accounts->list[i].introduced;
    for (int i = 0; i < accounts->n; i++) {
        struct account *account = &accounts->list[i];
        int64_t places = account->introduced ? part_of(free_places, n) : 0;
        int64_t now = account->introduced ? part_of(most, n) : 0;
        account->credit = now < places ? now : places;
        account->owed = places - account->credit;
    }
}

int64_t accounts_credit(const struct accounts *accounts, int broker)
{
    return accounts->list[broker].credit;
}

void accounts_spend(struct accounts *accounts, int broker)
{
    if (accounts->list[broker].credit > 0)
        accounts->list[broker].credit--;
}

/* Neither has credit nor will get some. */
static bool starves(const struct account *account)
{
    return account->introduced && account->credit == 0 && account->owed == 0;
}

void accounts_owe(struct accounts *accounts, int broker)
{
    for (int i = 0; i < accounts->n && !accounts->list[broker].introduced; i++)
        if (accounts->list[i].introduced)
            broker = i;
    for (int i = 0; i < accounts->n && !starves(&accounts->list[broker]); i++)
        if (starves(&accounts->list[i]))
            broker = i;
    accounts->list[broker].owed++;
}

bool accounts_uneven(const struct accounts *accounts)
{
    int64_t most = 0;
    bool any = false;
    for (int i = 0; i < accounts->n; i++) {
        const struct account *account = &accounts->list[i];
        any = any || (account->introduced && account->credit == 0);
        most = account->credit > most ? account->credit : most;
    }
    return any && most > 1;
}

int64_t accounts_owed(const struct accounts *accounts, int broker)
{
    const struct account *account = &accounts->list[broker];
    return account->introduced ? account->owed : 0;
}

void accounts_pay(struct accounts *accounts, int broker, int64_t grant)
{
    struct account *account = &accounts->list[broker];
    account->credit += grant;
    account->owed -= grant;
}

int64_t accounts_granted(const struct accounts *accounts)
{
    int64_t granted = 0;
    for (int i = 0; i < accounts->n; i++)
        granted += accounts->list[i].credit;
    return granted;
}

int64_t accounts_least(const struct accounts *accounts)
{
    int64_t least = -1;
    for (int i = 0; i < accounts->n; i++) {
        const struct account *account = &accounts->list[i];
        if (account->introduced && (least < 0 || account->credit < least))
            least = account->credit;
    }
    return least > 0 ? least : 0;
}
