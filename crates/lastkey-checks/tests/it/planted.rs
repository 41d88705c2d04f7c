//! The planted set: for each kind of credential one that must be found and a twin that must not.

use crate::made::{fill, scan, scanner};

/// Rule; where the secret stands; a place that looks like it and holds none.
type Pair = (&'static str, &'static str, &'static str);

const CLOUD: &[Pair] = &[
    ("aws-access-key-id", "id = AKIA[=2:16]", "id = AKIAIOSFODNN7EXAMPLE"),
    (
        "aws-secret-access-key",
        "aws_secret_access_key = [=b:40]",
        "aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    ),
    ("aws-key-pair", "k: [AKIA[=2:16], \"[=b:40]\"]", "sha: [AKIALS, \"[=h:40]\"]"),
    ("gcp-api-key", "const k = \"AIza[=u:35]\";", "const k = \"AIza-your-key\";"),
    (
        "gcp-service-account-key",
        "\"private_key\": \"[=pemline]\\n\",",
        "\"private_key\": \"-----BEGIN PRIVATE KEY-----\\nnot here\\n-----END PRIVATE KEY-----\\n\",",
    ),
    ("gcp-oauth-client-secret", "x: GOCSPX-[=u:28]", "x: GOCSPX-xxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    (
        "azure-storage-account-key",
        "AccountName=a;AccountKey=[=b:86]==;",
        "AccountName=a;AccountKey=${KEY};",
    ),
    ("azure-client-secret", "s: [=A:3]8Q~[=A:34]", "s: abc8Q~"),
    (
        "azure-shared-access-key",
        "Endpoint=sb://x/;SharedAccessKey=[=b:43]=",
        "Endpoint=sb://x/;SharedAccessKey=<key>",
    ),
    (
        "digitalocean-token",
        "t dop_v1_[=h:64]",
        "t dop_v1_0000000000000000000000000000000000000000000000000000000000000000",
    ),
    ("hashicorp-vault-token", "VAULT=hvs.[=A:90]", "VAULT=hvs.EXAMPLE"),
    (
        "terraform-cloud-token",
        "credentials [=A:14].atlasv1.[=A:67]",
        "credentials \"app.terraform.io\"",
    ),
    ("databricks-token", "tok dapi[=h:32]", "tok dapi-helpers"),
    ("doppler-token", "d dp.st.prd.[=A:43]", "d dp.st.prd.yours"),
    ("pulumi-token", "p pul-[=h:40]", "p pul-ling"),
    (
        "age-secret-key",
        "# [=age]",
        "# AGE-SECRET-KEY-1QQPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGPQYQSZQGP",
    ),
    ("supabase-key", "s sbp_[=h:40]", "s sbp_service"),
    (
        "cloudflare-api-token",
        "cloudflare_api_token = \"[=A:40]\"",
        "cloudflare_api_token = var.cloudflare_api_token",
    ),
    ("linode-token", "linode_token: [=h:64]", "linode_token: !vault"),
    (
        "azure-openai-key",
        "azure_openai_key='[=h:32]'",
        "azure_openai_key=os.environ['AZURE_OPENAI_KEY']",
    ),
];

const CHINA: &[Pair] = &[
    (
        "lastkey-admin-token",
        "LASTKEY_TOKEN=lastkey_admin_[=h:72]",
        "LASTKEY_TOKEN=lastkey_admin_0123",
    ),
    ("lastkey-bearer", "auth [=lkb]", "auth lkb1_[=u:133]"),
    ("lastkey-access-key-id", "id [=lkta]", "id LKTA[=2:32]"),
    ("alibaba-access-key-id", "id: LTAI5t[=A:18]", "id: LTAI5tYourAccessKeyIdHere"),
    ("alibaba-key-pair", "ak: LTAI5t[=A:18]\nsk: [=A:30]", "ak: ${ALI_AK}\nsk: [=l:30]"),
    (
        "alibaba-secret-access-key",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET=[=A:30]",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET=<your-access-key-secret>",
    ),
    ("tencent-secret-id", "id = AKID[=A:32]", "id = AKIDxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ("tencent-key-pair", "SecretId: AKID[=A:32]\nK: [=A:32]", "SecretId: AKID...\nK: ..."),
    (
        "tencent-secret-key",
        "TENCENTCLOUD_SECRET_KEY=\"[=A:32]\"",
        "TENCENTCLOUD_SECRET_KEY=\"your-secret-key\"",
    ),
    ("huawei-access-key", "HUAWEICLOUD_SDK_SK=[=A:40]", "HUAWEICLOUD_SDK_SK=$(cat /run/sk)"),
    (
        "volcengine-access-key-id",
        "ak AKLT[=A:43]",
        "ak AKLTxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    ),
    ("volcengine-key-pair", "ak: AKLT[=A:43]\nsk: [=b:58]==", "ak: yours\nsk: yours"),
    (
        "volcengine-secret-access-key",
        "VOLC_SECRETKEY=[=b:58]==",
        "VOLC_SECRETKEY=${VOLC_SECRETKEY}",
    ),
    ("baidu-cloud-access-key-id", "ak=ALTAK[=A:21]", "ak=ALTAKsomething"),
    ("baidu-cloud-key-pair", "ak=ALTAK[=A:21] sk=[=h:32]", "ak=$AK sk=[=l:32]"),
    ("baidu-cloud-secret-key", "baidubce_secret_key: [=h:32]", "baidubce_secret_key: ''"),
    ("qianfan-api-key", "k bce-v3/ALTAK-[=A:21]/[=h:40]", "k bce-v3/ALTAK-yours"),
    ("qiniu-secret-key", "qiniu.secret_key=[=A:40]", "qiniu.secret_key=@qiniu.sk@"),
    (
        "dingtalk-robot-token",
        "https://oapi.dingtalk.com/robot/send?access_token=[=h:64]",
        "https://oapi.dingtalk.com/robot/send?access_token=xxx",
    ),
    (
        "wecom-webhook-key",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=[=uuid]",
        "https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=KEY",
    ),
    ("wechat-app-secret", "wechat_app_secret: [=h:32]", "wechat_app_secret: your_app_secret"),
    ("feishu-app-secret", "app: cli_[=a:16] secret [=A:32]", "app: cli_args_parsed_here"),
    ("zhipu-api-key", "ZHIPUAI_API_KEY=[=h:32].[=A:16]", "ZHIPUAI_API_KEY=your.key"),
    ("deepseek-api-key", "DEEPSEEK_API_KEY=sk-[=h:32]", "DEEPSEEK_API_KEY=sk-your-key"),
    ("gitee-token", "gitee_token=[=h:32]", "gitee_token=$GITEE_TOKEN"),
];

const CODE: &[Pair] = &[
    (
        "private-key",
        "[=pem]",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8A\n-----END PUBLIC KEY-----",
    ),
    (
        "private-key",
        "key = \"[=pemline]\"",
        "key = \"-----BEGIN PRIVATE KEY-----\\n...\\n-----END PRIVATE KEY-----\"",
    ),
    ("github-token", "url ghp_[=crc62] x", "url ghp_[=A:36] x"),
    ("github-token", "GH=gho_[=crc62]", "GH=gho_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"),
    ("github-fine-grained-token", "p github_pat_[=A:22]_[=A:59]", "p github_pat_YOURS"),
    ("gitlab-token", "t glpat-[=A:20]", "t glpat-xxxxxxxxxxxxxxxxxxxx"),
    ("npm-token", "//r/:x npm_[=crc62]", "npm_config_registry_is_a_long_variable_name_here"),
    ("npmrc-auth", "//registry.x/:_authToken=[=A:40]", "//registry.x/:_authToken=${NPM_TOKEN}"),
    ("pypi-token", "[=macaroon]", "pypi-AgEIcHlwaS5vcmc-shortened"),
    ("dockerhub-token", "p dckr_pat_[=A:27]", "p dckr_pat_..."),
    (
        "docker-config-auth",
        "{\"auths\":{\"r\":{\"auth\": \"[=basic]\"}}}",
        "{\"auths\":{\"r\":{\"auth\": \"dXNlcjpwYXNzd29yZA==\"}}}",
    ),
    (
        "docker-swarm-join-token",
        "docker swarm join --token SWMTKN-1-[=a:50]-[=a:25] 10.0.0.1:2377",
        "docker swarm join --token SWMTKN-1-<token> 10.0.0.1:2377",
    ),
    (
        "jwk-private-key",
        "{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"[=u:43]\", \"d\": \"[=u:43]\"}",
        "{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"[=u:43]\", \"y\": \"[=u:43]\"}",
    ),
    (
        "jwk-private-key",
        "const jwk = {\n  k: '[=u:43]',\n  kty: 'oct',\n};",
        "const jwk = {\n  k: '<your key>',\n  kty: 'oct',\n};",
    ),
    ("jwt", "t = [=jwt]", "t = eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0."),
    ("kubernetes-service-account-token", "token: [=k8s]", "token: eyJ..."),
    (
        "kubeadm-bootstrap-token",
        "kubeadm join --token [=a:6].[=a:16]",
        "kubeadm join --token abcdef.0123456789abcdef",
    ),
    ("wireguard-private-key", "PrivateKey = [=b:42]A=", "PrivateKey = <paste here>"),
    (
        "django-secret-key",
        "SECRET_KEY = 'x[=A:40]!@#$%^&*('",
        "SECRET_KEY = os.environ['DJANGO_KEY']",
    ),
    ("sonarqube-token", "s squ_[=h:40]", "s squ_are"),
    ("rubygems-key", ":k: rubygems_[=h:48]", ":k: rubygems_version"),
    ("circleci-token", "c CCIPAT_[=A:22]_[=h:40]", "c CCIPAT_token"),
    ("laravel-app-key", "APP_KEY=base64:[=b:43]=", "APP_KEY="),
];

const SERVICES: &[Pair] = &[
    ("openai-api-key", "k sk-proj-[=A:74]T3BlbkFJ[=A:74]", "k sk-proj-yours"),
    ("anthropic-api-key", "k sk-ant-api03-[=A:95]", "k sk-ant-api03-..."),
    ("huggingface-token", "k hf_[=L:34]", "k hf_hub_download_from_a_repository_x"),
    ("slack-token", "k xoxb-[=d:12]-[=d:12]-[=A:24]", "k xoxb-your-token"),
    (
        "slack-webhook",
        "https://hooks.slack.com/services/T[=U:9]/B[=U:9]/[=A:24]",
        "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
    ),
    ("discord-bot-token", "discord [=discord]", "discord.py"),
    ("telegram-bot-token", "bot [=d:10]:AA[=A:33]", "bot 123456:ABC-DEF"),
    ("stripe-secret-key", "s sk_live_[=A:24]", "s pk_live_[=A:24]"),
    ("stripe-webhook-secret", "w whsec_[=A:32]", "w whsec_..."),
    ("shopify-token", "s shpat_[=h:32]", "s shpat_"),
    ("sendgrid-api-key", "s SG.[=A:22].[=A:43]", "s SG.xxxxxx.yyyyyy"),
    ("twilio-api-key", "twilio = SK[=h:32]", "twilio = SKILLS"),
    ("mailchimp-key", "m [=h:32]-us12", "m 00000000000000000000000000000000-us12"),
    ("newrelic-key", "n NRAK-[=U:27]", "n NRAK-KEY"),
    ("grafana-service-account-token", "g [=glsa]", "g glsa_[=A:32]_00112233"),
    ("datadog-api-key", "datadog_api_key: \"[=h:32]\"", "datadog_api_key: \"%(dd_api_key)s\""),
    ("notion-token", "n ntn_[=A:46]", "n ntn_ot"),
    ("linear-api-key", "l lin_api_[=A:40]", "l lin_api_key"),
    ("figma-token", "f figd_[=A:40]", "f figd_"),
    ("postman-api-key", "p PMAK-[=h:24]-[=h:34]", "p PMAK-1"),
    ("tailscale-key", "t tskey-auth-[=A:17]-[=A:32]", "t tskey-auth-k123"),
    ("airtable-token", "a pat[=A:14].[=h:64]", "a pat.tern"),
    ("okta-token", "okta_token = 00[=A:40]", "okta_token = var.okta_token"),
    (
        "nats-nkey-seed",
        "-----BEGIN USER NKEY SEED-----\nSU[=2:56]\n------END USER NKEY SEED------",
        "users: [{nkey: U[=2:55]}]",
    ),
    ("brevo-api-key", "b xkeysib-[=h:64]-[=A:16]", "b xkeysib-"),
];

const GENERIC: &[Pair] = &[
    (
        "url-credentials",
        "postgres://app:[=A:16]@db.internal:5432/x",
        "postgres://app:${DB_PASSWORD}@db.internal:5432/x",
    ),
    (
        "url-credentials",
        "https://bot:[=A:20]@git.internal/x.git",
        "https://user:password@example.com/x.git",
    ),
    (
        "database-connection-string",
        "Server=db1;Database=a;User Id=sa;Password=[=A:14];",
        "Server=db1;Database=a;User Id=sa;Password={0};",
    ),
    (
        "http-basic-auth",
        "Authorization: Basic [=basic]",
        "Authorization: Basic dXNlcjpwYXNzd29yZA==",
    ),
    (
        "http-bearer-auth",
        "curl -H 'Authorization: Bearer [=A:40]'",
        "curl -H 'Authorization: Bearer $TOKEN'",
    ),
    ("curl-credentials", "curl -u deploy:[=A:14] https://x", "curl -u user:password https://x"),
    ("generic-password", "db_password = \"[=A:12]7a\"", "db_password = getenv(\"DB_PASSWORD\")"),
    (
        "generic-password",
        "spring.datasource.password=[=A:14]4x",
        "spring.datasource.password=${DB_PASS:changeme}",
    ),
    ("generic-password", "  password: q[=A:13]3", "  password: \"{{ vault_password }}\""),
    ("generic-secret", "client_secret: \"[=A:32]9f\"", "client_secret: \"${CLIENT_SECRET}\""),
    ("generic-secret", "APP_TOKEN=[=A:40]7x", "APP_TOKEN=$(vault read -field=token secret/app)"),
    ("generic-secret", "{\"apiKey\":\"[=h:40]\"}", "{\"apiKey\":\"YOUR_API_KEY\"}"),
    ("generic-secret", "signing_key = b'[=b:43]7x'", "signing_key_id = 'key-2024-01-rotation-a'"),
    (
        "generic-secret",
        "<clientSecret>[=A:30]8z</clientSecret>",
        "<clientSecret>env:CLIENT_SECRET</clientSecret>",
    ),
    (
        "generic-secret",
        "  encryptionKey: [=A:32]1q",
        "kind: SealedSecret\n  encryptionKey: [=A:32]1q",
    ),
    ("http-basic-auth", "\"value\": \"Basic [=basic]\"", "Basic YWxhZGRpbjpvcGVuc2VzYW1l"),
    (
        "sql-password",
        "ALTER USER app IDENTIFIED BY [=A:12]7a;",
        "{PBEParameter IDENTIFIED BY pbeWithMD5AndDES-CBC}",
    ),
    (
        "sql-password",
        "CREATE ROLE app LOGIN PASSWORD '[=A:12]7a'",
        "CREATE ROLE app LOGIN PASSWORD :'app_password'",
    ),
    ("generic-password", "mysql --password [=A:12]7a", "mysql --password $DB_PASSWORD"),
    ("generic-password", "DB_PASS=[=A:12]7a", "--- PASS: TestSuite7/of_a2 (0.1s)"),
    ("generic-password", "  pass: 'q[=A:12]7}'", "  pass: 'prefix-${DB_PASSWORD_7}'"),
    ("generic-password", "password = \"zq[=l:14]kx\"", "password = \"benutzerkennung\""),
    (
        "generic-secret",
        "cipher_secret.set(Base64.decode(\"[=A:40]7x\"))",
        "cipher_secret = i18n.text(\"login.page2.word_of_passing\")",
    ),
    ("generic-secret", "client_secret=\"zq[=l:30]kx\"", "client_secret=\"nameOfTheClientSetting\""),
    ("generic-secret", "  oauth_token: 'x4[=a:14]9'", "  oauth_token: 'step1then2last'"),
    (
        "generic-secret",
        "consumer_secret: '[=A:9]$%[=A:6]71'",
        "consumer_secret: '%{consumer_secret}71'",
    ),
    ("bearer-token", "- Bearer [=h:64]", "- Bearer authentication_of_the_other_service_goes_here"),
];

fn all() -> impl Iterator<Item = (u64, &'static Pair)> {
    (1..).zip([CLOUD, CHINA, CODE, SERVICES, GENERIC].into_iter().flatten())
}

#[test]
fn every_planted_secret_is_found_under_its_rule() {
    let scanner = scanner();
    let mut missed = Vec::new();
    for (seed, (rule, plant, _)) in all() {
        let text = format!("before\n{}\nafter\n", fill(plant, seed));
        let outcome = scan(&scanner, "app/config", text.as_bytes());
        let rules: Vec<&str> =
            outcome.findings.iter().map(|finding| finding.rule.as_str()).collect();
        if !rules.contains(rule) {
            missed.push(format!("{rule}: {text:?}: {rules:?}"));
        }
    }
    assert!(missed.is_empty(), "{}\n{missed:#?}", missed.len());
}

#[test]
fn no_twin_of_a_planted_secret_is_found() {
    let scanner = scanner();
    let mut alarms = Vec::new();
    for (seed, (rule, _, twin)) in all() {
        let text = format!("before\n{}\nafter\n", fill(twin, seed));
        let outcome = scan(&scanner, "app/config", text.as_bytes());
        let rules: Vec<&str> =
            outcome.findings.iter().map(|finding| finding.rule.as_str()).collect();
        if !rules.is_empty() {
            alarms.push(format!("{rule}: {text:?}: {rules:?}"));
        }
    }
    assert!(alarms.is_empty(), "{}\n{alarms:#?}", alarms.len());
}

#[test]
fn planted_set_is_no_smaller_than_promised() {
    assert!(all().count() >= 120, "{}", all().count());
}

#[test]
fn no_report_shows_a_planted_secret() {
    use lastkey_checks::report::{Report, html, json, junit, sarif, text};
    let scanner = scanner();
    for (seed, (_, plant, _)) in all() {
        let planted = fill(plant, seed);
        let outcome = scan(&scanner, "app/config", planted.as_bytes());
        let report = Report { findings: outcome.findings, ..Report::default() };
        let words = planted.split(|c: char| !(c.is_ascii_alphanumeric() || "+/_-".contains(c)));
        let secrets: Vec<&str> = words.filter(|word| word.len() >= 20).collect();
        let mut shown = Vec::new();
        for form in [html, junit, sarif, text] {
            form(&report, &mut shown).unwrap();
        }
        json(&report, (), &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        for secret in &secrets {
            assert!(!shown.contains(secret), "{plant}");
        }
    }
}

#[test]
fn secret_inside_base64_is_found_where_the_base64_lies() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let scanner = scanner();
    let inner = fill("config:\n  token: ghp_[=crc62]\n", 5);
    let once = STANDARD.encode(&inner);
    for hidden in [once.clone(), STANDARD.encode(format!("data: {once}\n"))] {
        let outcome = scan(&scanner, "secret.yaml", format!("data:\n  x: {hidden}\n").as_bytes());
        assert_eq!(outcome.findings.len(), 1, "{:?}", outcome.findings);
        assert_eq!(outcome.findings[0].rule, "github-token");
        assert_eq!(outcome.findings[0].location.line, 2);
    }
}
