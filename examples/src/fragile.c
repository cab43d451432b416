/* A small parser with the bugs that C makes easy. It reads numbers between 0 and 999999 and gives their sum.
 *
 *     text := item*          item := NUMBER             the number
 *                                  | '(' item* ')'      the sum of the items
 *                                  | '^' '(' item* ')'  the largest of the items      bug: there may be none
 *                                  | NUMBER 'x' item    so many of the item           bug: no matter how many
 *                                  | '#' .. '\n'        nothing, a comment            bug: the end of the line may be missing
 *                                  | '!'                nothing, ends the program     bug: this is no program any more
 *
 *     bug: parentheses may be nested without end; bug: a ')' too many is taken for something that cannot happen
 */
#include <ctype.h>
#include <stdlib.h>

struct item {
    long value;
    /* The text that it stands for, some day. */
    char text[224];
    struct item *next;
};

struct parser {
    const char *start, *at;
};

static void drop_items(struct item *item) {
    while (item) {
        struct item *next = item->next;
        free(item);
        item = next;
    }
}

static struct item *new_item(long value, struct item *next) {
    struct item *item = malloc(sizeof *item);
    item->value = value;
    item->text[0] = '\0';
    item->next = next;
    return item;
}

static int parse_items(struct parser *p, int depth, struct item **items);

/* Items between parentheses; 0 if there are none to be read. */
static int parse_list(struct parser *p, int depth, struct item **items) {
    if (*p->at != '(')
        return 0;
    p->at++;
    if (!parse_items(p, depth + 1, items) || *p->at != ')')
        return 0;
    p->at++;
    return 1;
}

static int parse_item(struct parser *p, int depth, struct item **items) {
    struct item *inner = NULL;
    int good = 1;
    if (isdigit((unsigned char)*p->at)) {
        long number = strtol(p->at, (char **)&p->at, 10);
        if (*p->at != 'x') {
            *items = new_item(number, *items);
            return 1;
        }
        p->at++;
        good = parse_item(p, depth, &inner);
        for (long i = 0; good && inner && i < number; i++)
            *items = new_item(inner->value, *items);
    } else if (*p->at == '(') {
        long sum = 0;
        good = parse_list(p, depth, &inner);
        for (struct item *item = inner; item; item = item->next)
            sum += item->value;
        *items = new_item(sum, *items);
    } else if (*p->at == '^') {
        p->at++;
        good = parse_list(p, depth, &inner);
        if (good) {
            long largest = inner->value;
            for (struct item *item = inner->next; item; item = item->next)
                largest = item->value > largest ? item->value : largest;
            *items = new_item(largest, *items);
        }
    } else if (*p->at == '#') {
        while (*p->at != '\n')
            p->at += *p->at != '\0';
    } else if (*p->at == '!') {
        exit(0);
    } else {
        good = 0;
    }
    drop_items(inner);
    return good;
}

static int parse_items(struct parser *p, int depth, struct item **items) {
    for (;;) {
        while (isspace((unsigned char)*p->at))
            p->at++;
        if (*p->at == '\0')
            return depth == 0;
        if (*p->at == ')') {
            if (depth == 0)
                abort();
            return 1;
        }
        if (!parse_item(p, depth, items))
            return 0;
    }
}

/* The sum of the numbers in a text that ends with a NUL; -1 - N if it makes no sense at byte N. */
long fragile_sum(const char *text) {
    struct parser p = {text, text};
    struct item *items = NULL;
    long sum = 0;
    int good = parse_items(&p, 0, &items);
    for (struct item *item = items; item; item = item->next)
        sum += item->value;
    drop_items(items);
    return good ? sum : -1 - (long)(p.at - p.start);
}
