/* Credit: how many subtasks each broker may still send, so that all of them together send no more
 * than there are places. */
#ifndef WORKERS_ACCOUNTS_H
#define WORKERS_ACCOUNTS_H

#include <stdbool.h>
#include <stdint.h>

struct accounts;

struct accounts *accounts_new(int n_brokers);
void accounts_free(struct accounts **accounts); /* accepts NULL */

void accounts_introduce(struct accounts *accounts, int broker); /* the broker knows us */
void accounts_lose(struct accounts *accounts, int broker);      /* it is silent */
bool accounts_introduced(const struct accounts *accounts, int broker);

/* Divides the free places anew among the brokers that know us. Each gets at least one while there
 * is any: what then comes too much has to wait in the worker. Of its part, a broker gets no more
 * now than its part of `most`; the rest is owed. */
void accounts_divide(struct accounts *accounts, int64_t free_places, int64_t most);
int64_t accounts_credit(const struct accounts *accounts, int broker);
/* A dispatch has come. */
void accounts_spend(struct accounts *accounts, int broker);
/* A place is free again: it is owed to a broker that has nothing, or else to the one that used it,
 * or to another when that one is gone. */
void accounts_owe(struct accounts *accounts, int broker);
/* What is to be granted now; 0 for a broker that does not know us. */
int64_t accounts_owed(const struct accounts *accounts, int broker);
/* So much of it was granted. */
void accounts_pay(struct accounts *accounts, int broker, int64_t grant);
/* All that is granted and not yet used. */
int64_t accounts_granted(const struct accounts *accounts);
/* One broker has used up its credit while another leaves some unused: the places are to be divided
 * anew, for the offers may all be with the first one. */
bool accounts_uneven(const struct accounts *accounts);
/* The least credit of any broker that knows us: none of them may believe that it has more. */
int64_t accounts_least(const struct accounts *accounts);

#endif
