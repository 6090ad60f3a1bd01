/* A user agent of one thread for the attack tests: TLS in, TLS out, answers
 * every call, and takes commands on its standard input. What happens is
 * printed on standard output, one line an event.
 *
 * Usage: pj_victim [name=value]...
 *   ca, cert, key    PEM files                     (default: none)
 *   proto            bits of PJ_SSL_SOCK_PROTO_*   (default: TLS 1.3)
 *   verify           check certificates            (default: 1)
 *   port             of the TLS listener           (default: any free one)
 *   srtp             0, 1 or 2                     (default: 2, mandatory)
 *   answer           status of the answer, 0 = none (default: 200)
 *   text             real-time text streams to allow (default: 0)
 *   refuse           method of requests that are not sent (default: none)
 *   hold_ms          hang up so long after the answer (default: never)
 *   log              level of what the library logs, on standard output (default: 1)
 * Commands: renew CA CERT KEY | restart PORT | call URI | bye | timers | quit
 * The status of `timers` is the number of timers that are running.
 */
#include <pjsua-lib/pjsua.h>
#include <pjsua-lib/pjsua_internal.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *opt_ca = "", *opt_cert = "", *opt_key = "", *opt_refuse = "";
static unsigned opt_proto = PJ_SSL_SOCK_PROTO_TLS1_3, opt_verify = 1;
static unsigned opt_port, opt_srtp = 2, opt_answer = 200, opt_hold_ms, opt_text, opt_log = 1;
static pjsua_transport_id transport_id;
static int running = 1;

static void say(const char *format, ...)
{
    va_list arg;

    va_start(arg, format);
    vprintf(format, arg);
    va_end(arg);
    putchar('\n');
    fflush(stdout);
}

static void fail(const char *what, pj_status_t status)
{
    char text[PJ_ERR_MSG_SIZE];

    pj_strerror(status, text, sizeof(text));
    say("FAILED %s %d %s", what, status, text);
    exit(3);
}

static void fill_tls(pjsip_tls_setting *tls, const char *ca, const char *cert,
                     const char *key)
{
    pjsip_tls_setting_default(tls);
    tls->proto = opt_proto;
    tls->ca_list_file = pj_str((char*)ca);
    tls->cert_file = pj_str((char*)cert);
    tls->privkey_file = pj_str((char*)key);
    tls->verify_client = tls->verify_server = opt_verify;
    tls->require_client_cert = opt_verify;
    tls->timeout.sec = 5;
}

static void on_transport_state(pjsip_transport *tp, pjsip_transport_state state,
                               const pjsip_transport_state_info *info)
{
    const pjsip_tls_state_info *tls = info->ext_info;
    unsigned verify = tls ? (unsigned)tls->ssl_sock_info->verify_status : 0;
    unsigned proto = tls ? (unsigned)tls->ssl_sock_info->proto : 0;

    say("TRANSPORT %d status=%d verify=%u proto=%u peer=%d", (int)state,
        info->status, verify, proto, tp->remote_name.port);
}

static void on_incoming_call(pjsua_acc_id acc, pjsua_call_id id,
                             pjsip_rx_data *rdata)
{
    pjsua_call_setting setting;

    PJ_UNUSED_ARG(acc);
    PJ_UNUSED_ARG(rdata);
    say("CALL %d", id);
    if (!opt_answer)
        return;
    pjsua_call_setting_default(&setting);
    setting.vid_cnt = 0;
    setting.txt_cnt = opt_text;
    pjsua_call_answer2(id, &setting, opt_answer, NULL, NULL);
}

static void hang_up_later(void *user_data)
{
    pjsua_call_hangup((pjsua_call_id)(pj_ssize_t)user_data, 0, NULL, NULL);
}

static void on_call_state(pjsua_call_id id, pjsip_event *event)
{
    pjsua_call_info info;

    PJ_UNUSED_ARG(event);
    if (pjsua_call_get_info(id, &info) != PJ_SUCCESS)
        return;
    say("STATE %d %.*s %d", id, (int)info.state_text.slen, info.state_text.ptr,
        info.last_status);
    if (info.state == PJSIP_INV_STATE_CONFIRMED && opt_hold_ms)
        pjsua_schedule_timer2(hang_up_later, (void*)(pj_ssize_t)id, opt_hold_ms);
}

static void on_call_media_state(pjsua_call_id id)
{
    pjsua_call_info info;
    unsigned i;

    if (pjsua_call_get_info(id, &info) != PJ_SUCCESS)
        return;
    for (i = 0; i < info.media_cnt; ++i) {
        if (info.media[i].type != PJMEDIA_TYPE_AUDIO)
            continue;
        say("MEDIA %d %d", id, (int)info.media[i].status);
        if (info.media[i].status == PJSUA_CALL_MEDIA_ACTIVE)
            pjsua_conf_connect(info.media[i].stream.aud.conf_slot,
                               info.media[i].stream.aud.conf_slot);
    }
}

static pj_status_t on_tx_request(pjsip_tx_data *tdata)
{
    return pj_stricmp2(&tdata->msg->line.req.method.name, opt_refuse) ? PJ_SUCCESS : PJ_ECANCELLED;
}

static pjsip_module refusal = {
    .name = {"refusal", 7}, .id = -1, .priority = PJSIP_MOD_PRIORITY_TRANSPORT_LAYER + 1,
    .on_tx_request = on_tx_request,
};

static void command(char *line)
{
    char word[4][512] = {"", "", "", ""};
    int words = sscanf(line, "%511s %511s %511s %511s", word[0], word[1],
                       word[2], word[3]);
    pj_status_t status = PJ_SUCCESS;

    if (words < 1)
        return;
    if (strcmp(word[0], "quit") == 0) {
        running = 0;
#ifdef SEALTRUNK_HAVE_TLS_RENEW
    } else if (strcmp(word[0], "renew") == 0) {
        pjsip_tls_setting tls;

        fill_tls(&tls, word[1], word[2], word[3]);
        status = pjsip_tls_transport_renew(
                     pjsua_var.tpdata[transport_id].data.factory, &tls);
#endif
    } else if (strcmp(word[0], "restart") == 0) {
        pjsip_tpfactory *factory = pjsua_var.tpdata[transport_id].data.factory;
        pj_str_t host = pj_str("127.0.0.1");
        pj_sockaddr address;

        pj_sockaddr_init(pj_AF_INET(), &address, &host, (pj_uint16_t)atoi(word[1]));
        status = pjsip_tls_transport_restart(factory, &address, NULL);
    } else if (strcmp(word[0], "call") == 0) {
        pj_str_t uri = pj_str(word[1]);
        pjsua_call_setting setting;

        pjsua_call_setting_default(&setting);
        setting.vid_cnt = setting.txt_cnt = 0;
        status = pjsua_call_make_call(0, &uri, &setting, NULL, NULL, NULL);
    } else if (strcmp(word[0], "timers") == 0) {
        status = (pj_status_t)pj_timer_heap_count(pjsip_endpt_get_timer_heap(pjsua_get_pjsip_endpt()));
    } else if (strcmp(word[0], "bye") == 0) {
        pjsua_call_hangup_all();
    } else {
        status = PJ_ENOTSUP;
    }
    say("DONE %s %d", word[0], status);
}

static void read_commands(void)
{
    static char line[2048];
    static size_t used;
    ssize_t got = read(0, line + used, sizeof(line) - 1 - used);
    char *end;

    if (got == 0) {
        running = 0;
    } else if (got > 0) {
        used += (size_t)got;
        line[used] = '\0';
        while ((end = strchr(line, '\n')) != NULL) {
            *end = '\0';
            command(line);
            used -= (size_t)(end + 1 - line);
            memmove(line, end + 1, used + 1);
        }
    }
}

static void parse(int argc, char **argv)
{
    static const struct { const char *name; const char **text; unsigned *number; } map[] = {
        {"ca", &opt_ca, NULL}, {"cert", &opt_cert, NULL}, {"key", &opt_key, NULL},
        {"proto", NULL, &opt_proto}, {"verify", NULL, &opt_verify},
        {"refuse", &opt_refuse, NULL}, {"port", NULL, &opt_port}, {"srtp", NULL, &opt_srtp},
        {"text", NULL, &opt_text}, {"answer", NULL, &opt_answer}, {"hold_ms", NULL, &opt_hold_ms},
        {"log", NULL, &opt_log},
    };
    int i;
    unsigned j;

    for (i = 1; i < argc; ++i) {
        for (j = 0; j < PJ_ARRAY_SIZE(map); ++j) {
            size_t length = strlen(map[j].name);

            if (strncmp(argv[i], map[j].name, length) || argv[i][length] != '=')
                continue;
            if (map[j].text)
                *map[j].text = argv[i] + length + 1;
            else
                *map[j].number = (unsigned)atoi(argv[i] + length + 1);
        }
    }
}

int main(int argc, char **argv)
{
    pjsua_config config;
    pjsua_logging_config logging;
    pjsua_media_config media;
    pjsua_transport_config transport;
    pjsua_acc_config account;
    pjsua_acc_id account_id;
    pjsua_transport_info info;
    pj_status_t status;

    parse(argc, argv);
    setvbuf(stdout, NULL, _IOLBF, 0); /* the library does not flush what it logs */
    pjsua_create();
    pjsua_config_default(&config);
    config.thread_cnt = 0;
    config.max_calls = 64;
    config.cb.on_transport_state = on_transport_state;
    config.cb.on_incoming_call = on_incoming_call;
    config.cb.on_call_state = on_call_state;
    config.cb.on_call_media_state = on_call_media_state;
    pjsua_logging_config_default(&logging);
    logging.level = logging.console_level = opt_log;
    pjsua_media_config_default(&media);
    media.clock_rate = media.snd_clock_rate = 8000;
    media.snd_auto_close_time = -1;
    media.no_vad = PJ_TRUE;
    media.ec_tail_len = 0;
    status = pjsua_init(&config, &logging, &media);
    if (status == PJ_SUCCESS)
        status = pjsip_endpt_register_module(pjsua_get_pjsip_endpt(), &refusal);
    if (status != PJ_SUCCESS)
        fail("init", status);

    pjsua_transport_config_default(&transport);
    transport.port = opt_port;
    transport.bound_addr = transport.public_addr = pj_str("127.0.0.1");
    fill_tls(&transport.tls_setting, opt_ca, opt_cert, opt_key);
    status = pjsua_transport_create(PJSIP_TRANSPORT_TLS, &transport, &transport_id);
    if (status != PJ_SUCCESS)
        fail("transport", status);
    status = pjsua_start();
    if (status != PJ_SUCCESS)
        fail("start", status);
    pjsua_set_null_snd_dev();

    pjsua_acc_config_default(&account);
    account.id = pj_str("<sip:victim@127.0.0.1>");
    account.transport_id = transport_id;
    account.allow_contact_rewrite = account.contact_use_src_port = PJ_FALSE;
    account.use_srtp = (pjmedia_srtp_use)opt_srtp;
    account.srtp_secure_signaling = opt_srtp ? 1 : 0;
    account.rtp_cfg.bound_addr = account.rtp_cfg.public_addr = pj_str("127.0.0.1");
    status = pjsua_acc_add(&account, PJ_TRUE, &account_id);
    if (status != PJ_SUCCESS)
        fail("account", status);

    pjsua_transport_get_info(transport_id, &info);
    fcntl(0, F_SETFL, O_NONBLOCK);
    say("READY %d", pj_sockaddr_get_port(&info.local_addr));
    while (running) {
        pjsua_handle_events(10);
        read_commands();
    }
    pjsua_call_hangup_all();
    pjsua_destroy();
    say("END");
    return 0;
}
