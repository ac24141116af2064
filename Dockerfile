# Copse in a container: the static binary, the certificates of public authorities to fetch issuers' keys by, and
# a directory for the data that its user may write to. There is no shell. `make image` puts the parts there and
# builds it.
#   docker run -v copse:/data -e COPSE_BEHIND_TLS_PROXY=true -e COPSE_LISTEN=:8420 -p 8420:8420 copse
FROM scratch
COPY --chown=65532:65532 bin/image/data /data
COPY bin/image/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY bin/image/copse /copse
USER 65532:65532
ENV COPSE_DATA=/data/copse
VOLUME /data
EXPOSE 8420
ENTRYPOINT ["/copse"]
CMD ["serve"]
